import { isSimulatedModel } from '@askonce/core'
import { failureOf, type AnsweredJob } from '../job.ts'
import { onOneLine, rawMembers } from '../raw-json.ts'
import type { Ask, BatchInput, InputLine } from './input.ts'

/**
 * One line of output: `{"index", "key", "custom_id"?, "fingerprint", "id"?, "state", "flags"?, "response" | "error"}`.
 * It begins with what belongs to the input line; the rest, the tail, belongs to the answer. Only what can never change
 * once the answer is stored is in it, so that the file comes out the same however often the run was interrupted: no
 * times, no `replayed`, and no usage, which grows when an abandoned call turns out to have been billed after all.
 */
export function answerLine(line: InputLine, ask: Ask, tail: string): string {
  const customId = line.customId === undefined ? '' : `,"custom_id":${JSON.stringify(line.customId)}`
  return `{"index":${line.index},"key":${JSON.stringify(ask.key)}${customId},${tail}}\n`
}

/** The tail of a job that has settled. The answer keeps its bytes, but for line ends between its members. */
export function tailOfJob(ask: Ask, { job, response }: AnsweredJob): string {
  const head = `"fingerprint":"${ask.fingerprint}","id":${JSON.stringify(job.id)},"state":"${job.state}"`
  if (response === null || job.state !== 'succeeded') return `${head},"error":${JSON.stringify(failureOf(job))}`
  const flags = job.flags.length === 0 ? '' : `,"flags":${JSON.stringify(job.flags)}`
  return `${head}${flags},"response":${onOneLine(response)}`
}

/** The tail of a line that the server did not accept. */
export function tailOfRefusal(ask: Ask, error: { code: string; message: string }): string {
  return `"fingerprint":"${ask.fingerprint}","state":"refused","error":${JSON.stringify(error)}`
}

export interface KnownAnswer {
  ask: number
  tail: string
  succeeded: boolean
}

/**
 * What a line of an existing file answers. `stale`: its key is in the input, but now asks something else (the key alone
 * does not do: somebody may have edited the request). null: a torn line, another input's answer, something else.
 * `askOf` finds a question by its key.
 */
export function readAnswer(
  text: string,
  input: BatchInput,
  askOf: (key: string) => number | undefined,
): KnownAnswer | 'stale' | null {
  const line = parseObject(text)
  if (line === null) return null
  const { key, fingerprint, state } = line
  const ask = typeof key === 'string' ? askOf(key) : undefined
  if (ask === undefined || typeof state !== 'string') return null
  if (input.asks[ask]?.fingerprint !== fingerprint) return 'stale'
  const answered = state === 'succeeded' && 'response' in line
  if (!answered && !('error' in line)) return null
  const succeeded = answered && !isMadeUp(line)
  const own = rawMembers(text).filter(({ name }) => !['index', 'key', 'custom_id'].includes(name))
  const tail = own.map(({ name, text: value }) => `${JSON.stringify(name)}:${value}`).join(',')
  return { ask, tail, succeeded }
}

/** An answer of the simulator in the name of a real model, as servers gave it once: it is asked again. */
function isMadeUp({ flags, response }: Record<string, unknown>): boolean {
  if (!Array.isArray(flags) || !flags.includes('simulated')) return false
  const model = (response as { model?: unknown } | null)?.model
  return typeof model === 'string' && !isSimulatedModel(model)
}

function parseObject(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}
