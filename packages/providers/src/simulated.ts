import { setMaxListeners } from 'node:events'
import type { Broken, Exchange, Response, Wire, WireCall } from './exchange.ts'
import { simulatedAnswer } from './simulated-answer.ts'

export interface SimulatedOptions {
  /** Time to an answer, in milliseconds; each call takes up to 20 % more or less. */
  latencyMs: number
  /** Output tokens of an answer. */
  tokens: number
  /** Share of calls that fail as a real provider would, 0 to 1. */
  failureRate: number
}

/**
 * A provider inside the process. It makes statuses, headers and bytes like a real one, which then go through the same
 * classification; what it answers always says `"system_fingerprint": "simulated"`. A failed call is never billed.
 */
export function createSimulatedWire(options: SimulatedOptions, random: () => number = Math.random): Wire {
  /** Ends one call each, for close(). */
  const open = new Set<() => void>()
  let closed = false
  return {
    send: (call) =>
      closed ? Promise.resolve(broken('lost', 'the provider is closed', false)) : simulate(options, random, call, open),
    close: async () => {
      closed = true
      for (const end of open) end()
    },
  }
}

// By hand: AbortSignal.any() keeps a reference per call in a signal that lives as long as the provider (Node 20).
function simulate(
  { latencyMs, tokens, failureRate }: SimulatedOptions,
  random: () => number,
  call: WireCall,
  open: Set<() => void>,
): Promise<Exchange> {
  if (call.signal.aborted) return Promise.resolve(broken('aborted', 'aborted by the caller', false))
  call.onSent()
  const answerMs = latencyMs * (0.8 + 0.4 * random())
  const limitMs = Math.min(answerMs, call.timeoutMs)
  const failed = random() < failureRate ? failure(random()) : null
  const answer = (): ReturnType<typeof simulatedAnswer> =>
    simulatedAnswer(call.path, call.body ?? Buffer.alloc(0), tokens)
  const streamed = failed === null && call.streamed ? answer() : null
  const events = streamed?.events ?? []
  const startedAt = performance.now()
  return new Promise((resolve) => {
    let shown = 0
    let settled = false
    const finish = (result: Exchange): void => {
      settled = true
      clearTimeout(timer)
      call.signal.removeEventListener('abort', onAbort)
      open.delete(onClose)
      resolve(result)
    }
    const breakOff = (reason: Broken['reason'], detail: string): void => {
      finish({
        ...broken(reason, detail, true),
        ...(shown > 0 && streamed !== null ? { status: 200, headers: streamed.headers } : {}),
      })
    }
    const onAbort = (): void => breakOff('aborted', 'aborted by the caller')
    const onClose = (): void => breakOff('lost', 'the provider is closed')
    /** The events that are due, spread evenly over the time to the whole answer; the first at once. */
    const show = (elapsedMs: number, isOver: boolean): void => {
      const due = isOver ? events.length : 1 + Math.floor(((events.length - 1) * elapsedMs) / answerMs)
      if (due <= shown) return
      const bytes = Buffer.concat(events.slice(shown, due))
      shown = due
      call.reader.push(bytes)
    }
    const onTime = (): void => {
      const elapsedMs = performance.now() - startedAt
      const isOver = elapsedMs >= limitMs
      const isLate = answerMs > call.timeoutMs
      if (events.length > 0) show(Math.min(elapsedMs, limitMs), isOver && !isLate)
      // Whoever takes the events may abort the call.
      if (settled) return
      if (!isOver)
        timer = setTimeout(onTime, events.length > 0 ? Math.min(tickMs, limitMs - elapsedMs) : limitMs - elapsedMs)
      else if (isLate) breakOff('timeout', `no complete answer within ${call.timeoutMs} ms`)
      else finish(failed ?? streamed ?? answer())
    }
    let timer = setTimeout(onTime, events.length > 0 ? 0 : limitMs)
    setMaxListeners(0, call.signal)
    call.signal.addEventListener('abort', onAbort, { once: true })
    open.add(onClose)
  })
}

/** Time between the events of a stream; what is due earlier comes with the next. */
const tickMs = 10

function broken(reason: Broken['reason'], detail: string, sent: boolean): Broken {
  return { kind: 'broken', reason, sent, detail, status: null, headers: {} }
}

const failures = [
  { status: 429, type: 'rate_limit_error', code: 'rate_limit_exceeded', headers: { 'retry-after': '1' } },
  { status: 500, type: 'server_error', code: null, headers: {} },
  { status: 503, type: 'service_unavailable_error', code: 'server_is_overloaded', headers: {} },
] as const

function failure(random: number): Response {
  const { status, type, code, headers } = failures[Math.floor(random * failures.length)] ?? failures[0]
  const error = { message: `Simulated failure: ${type}`, type, param: null, code }
  return {
    kind: 'response',
    status,
    headers: { 'content-type': 'application/json', ...headers },
    body: Buffer.from(JSON.stringify({ error, system_fingerprint: 'simulated' })),
  }
}
