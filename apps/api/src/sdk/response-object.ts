import type { JobState } from '@askonce/core'
import { createSplitter, jobError, parseJson, readEvent } from '@askonce/core'
import type { JobRow } from '@askonce/store'
import { inTurns } from './in-turns.ts'

const statuses: Record<JobState, string> = {
  queued: 'queued',
  running: 'in_progress',
  // Its answer is the provider's.
  succeeded: 'completed',
  failed: 'failed',
  uncertain: 'failed',
  cancelled: 'cancelled',
}

/** How a response is named before the provider has named it: our job's id without its dashes. */
function responseIdOf(jobId: string): string {
  return `resp_${jobId.replaceAll('-', '')}`
}

/** The job id in such a name; null: it is not one of ours. */
export function jobIdOf(responseId: string): string | null {
  const hex = /^resp_([0-9a-f]{32})$/.exec(responseId)?.[1]
  return hex?.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5') ?? null
}

/** A response as far as we can speak of it: without an answer, or with an answer whose provider's own object cannot be had. */
export function responseOf(row: JobRow): object {
  const { code, message } = row.error ?? jobError('provider_error')
  const failed = row.state === 'failed' || row.state === 'uncertain'
  return {
    id: row.answer_id ?? responseIdOf(row.id),
    object: 'response',
    created_at: Math.floor(row.created_at.getTime() / 1000),
    status: statuses[row.state],
    background: true,
    error: failed ? { code: row.state === 'uncertain' ? 'job_uncertain' : code, message } : null,
    incomplete_details: null,
    model: row.model,
    output: [],
    metadata: row.metadata ?? {},
    usage: null,
  }
}

const terminal = new Set(['response.completed', 'response.incomplete'])

const names = [...terminal].map((name) => Buffer.from(name))
/** Most events with such a name, in whatever they say, that are kept in mind, from the last one back. */
const maxNamed = 100

/** The response in the last event of a stored stream, as its text was; null: there is none. */
export async function responseInStream(transcript: Buffer): Promise<Buffer | null> {
  const named: Buffer[] = []
  const splitter = createSplitter()
  for await (const events of inTurns(splitter, transcript)) {
    for (const event of events) if (names.some((name) => event.includes(name))) named.push(event)
    if (named.length > maxNamed) named.splice(0, named.length - maxNamed)
  }
  // A provider may leave out the empty line behind its last event.
  for (const event of [...named, splitter.rest()].toReversed()) {
    const { name, data } = readEvent(event)
    if (data === null || !data.trimStart().startsWith('{')) continue
    try {
      const { value, textOf } = parseJson(data)
      const { type = name, response } = value as { type?: unknown; response?: unknown }
      if (typeof type === 'string' && terminal.has(type) && typeof response === 'object' && response !== null) {
        return Buffer.from(textOf(response))
      }
    } catch {
      continue
    }
  }
  return null
}
