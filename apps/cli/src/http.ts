import { setMaxListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, request } from 'undici'
import { ApiError, CliError, exitCodes, reasonOf, usageError } from './errors.ts'

/** Where the server is and with which key. */
export interface Server {
  url: string
  /** Null: none is known. Whether the server asks for one, its answer says. */
  apiKey: string | null
}

export interface ClientOptions {
  /** How long one call is repeated while the server says that it may be, or does not answer; 0: never. */
  patienceMs: number
  /** Whether a server that cannot be reached is waited for too; otherwise that is said at once. */
  awaitServer?: boolean
  /** Ends everything under way. */
  signal?: AbortSignal
  /** What is wrong at the moment; null: the server answers again. */
  onTrouble?: (trouble: string | null) => void
}

export interface Call {
  method: 'GET' | 'POST'
  path: string
  /** JSON text. */
  body?: string
  headers?: Record<string, string>
  /** The server may hold the answer back for so long. */
  waitSeconds?: number
  /** False: asking twice is not the same as asking once, so a call whose answer was lost is not repeated. */
  repeatable?: boolean
}

/** A 2xx answer. */
export interface Reply {
  status: number
  headers: Record<string, string | string[] | undefined>
  bytes: Buffer
}

/** Why a call gave no answer to work with; `unsent`: the server has not seen it. */
interface Trouble {
  text: string
  unsent: boolean
  retryAfterMs: number
  /** The server speaks, and asks to come back. */
  spoken: boolean
}

const deadlineMs = 30_000
const firstBackoffMs = 250
const backoffCapMs = 10_000
const notSent = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
])

/**
 * Speaks to one server. Repeats what may be repeated, no sooner than Retry-After says, with jitter so that many clients
 * do not return together; throws {@link ApiError} for a refusal, CliError (exit code 3) when patience runs out.
 */
export class Client {
  readonly server: Server
  private readonly options: ClientOptions
  private readonly agent = new Agent({ connections: 64, connect: { timeout: 5_000 }, keepAliveTimeout: 10_000 })

  constructor(server: Server, options: ClientOptions) {
    this.server = server
    this.options = options
    // Each call listens to it while it runs, and dozens run at once.
    if (options.signal !== undefined) setMaxListeners(0, options.signal)
  }

  /** Calls until there is an answer. */
  async send(call: Call): Promise<Reply> {
    const { patienceMs, awaitServer = false, onTrouble } = this.options
    let giveUpAt: number | null = null
    for (let failures = 0; ; failures += 1) {
      const outcome = await this.once(call)
      if ('bytes' in outcome) {
        if (failures > 0) onTrouble?.(null)
        return outcome
      }
      const mayRepeat = outcome.unsent || outcome.spoken || (call.repeatable ?? true)
      const waits = outcome.spoken || awaitServer
      giveUpAt ??= performance.now() + patienceMs
      const jitterMs = Math.random() * Math.min(backoffCapMs, firstBackoffMs * 2 ** Math.min(failures, 10))
      const pauseMs = outcome.retryAfterMs + firstBackoffMs / 2 + jitterMs
      if (!mayRepeat || !waits || performance.now() + pauseMs > giveUpAt) throw this.unreachable(outcome)
      onTrouble?.(outcome.text)
      await sleep(pauseMs, undefined, this.options.signal === undefined ? {} : { signal: this.options.signal })
    }
  }

  /** The same for a JSON answer, parsed. */
  async json<T>(call: Call): Promise<T> {
    const { bytes } = await this.send(call)
    return JSON.parse(bytes.toString('utf8')) as T
  }

  async close(): Promise<void> {
    await this.agent.destroy()
  }

  private async once(call: Call): Promise<Reply | Trouble> {
    const { signal } = this.options
    const limitMs = deadlineMs + (call.waitSeconds ?? 0) * 1000
    try {
      const { statusCode, headers, body } = await request(this.server.url + call.path, {
        dispatcher: this.agent,
        method: call.method,
        headers: {
          ...(this.server.apiKey === null ? {} : { authorization: `Bearer ${this.server.apiKey}` }),
          ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
          ...call.headers,
        },
        body: call.body ?? null,
        headersTimeout: limitMs,
        bodyTimeout: limitMs,
        ...(signal === undefined ? {} : { signal }),
      })
      const bytes = Buffer.from(await body.arrayBuffer())
      if (statusCode >= 200 && statusCode < 300) return { status: statusCode, headers, bytes }
      if (statusCode === 401 && this.server.apiKey === null) {
        const message = `ASKONCE_API_KEY is not set, and ${this.server.url} asks for a key`
        throw usageError(message, 'npm start prints one when it starts.')
      }
      return refusal(statusCode, headers, bytes)
    } catch (error) {
      if (error instanceof CliError || signal?.aborted) throw error
      const code = String((error as { code?: unknown }).code)
      const unsent = notSent.has(code)
      const text = unsent ? reasonOf(error) : `the connection broke: ${reasonOf(error)}`
      return { text, unsent, retryAfterMs: 0, spoken: false }
    }
  }

  private unreachable({ text, unsent, spoken }: Trouble): CliError {
    const { url } = this.server
    if (spoken)
      return new CliError(exitCodes.unreachable, `${url} cannot answer at the moment: ${text}`, 'Try again later.')
    if (unsent) {
      return new CliError(exitCodes.unreachable, `no server answers at ${url}: ${text}`, 'Start one with: npm start')
    }
    return new CliError(
      exitCodes.unreachable,
      `${url} gave no answer: ${text}`,
      'What was asked may have been done: look before asking again.',
    )
  }
}

/** Something to come back for, or an {@link ApiError}, thrown. The server's own word comes before its status. */
function refusal(status: number, headers: Reply['headers'], bytes: Buffer): Trouble {
  const problem = readProblem(bytes)
  const said = headers['x-should-retry']
  const byStatus = status === 429 || status >= 500
  const retryable = said === 'true' || (said !== 'false' && (problem.retryable ?? byStatus))
  const detail = problem.detail ?? problem.title ?? `the server answered ${status}`
  if (!retryable) throw new ApiError(status, problem.code ?? 'unknown', detail)
  const seconds = Number(headers['retry-after'] ?? 0)
  const retryAfterMs = Number.isFinite(seconds) ? Math.max(0, seconds) * 1000 : 0
  return { text: `${detail} (${status})`, unsent: false, retryAfterMs, spoken: true }
}

interface Problem {
  code?: string
  title?: string
  detail?: string
  retryable?: boolean
}

function readProblem(bytes: Buffer): Problem {
  try {
    const value = JSON.parse(bytes.toString('utf8')) as Problem | null
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    // A proxy in between answered with a page of its own: its status is all there is to go by.
    return {}
  }
}
