import type { Config } from '@askonce/config'
import { errorRegistry, isTerminal, mayMeetLimit } from '@askonce/core'
import { defaultTtl, deliveryOf, wholeSeconds } from '@askonce/intake'
import type { Waker } from '@askonce/queue'
import {
  isDataError,
  lanesToWake,
  openLines,
  readLinesWithJobs,
  readReadyLines,
  readSubmissionRules,
  submitBatch,
  submitLimited,
  withBatch,
  writeResults,
} from '@askonce/store'
import type {
  Db,
  LeasedBatch,
  NewJob,
  OpenedLine,
  ReadyLine,
  RefusedSubmission,
  SubmitResult,
  TenantDefaults,
} from '@askonce/store'
import { collect } from './collect.ts'
import { leaseMs } from './lease.ts'
import { lineErrors, withoutAnswer, type LineError } from './result-lines.ts'

const groupLines = 500
const groupBytes = 4 * 1024 * 1024
const daySeconds = 86_400
/** After the calls that somebody waits for, which have 5 unless they say otherwise. */
const priority = 7

interface Submission {
  db: Db
  config: Config
  waker: Waker
}

type Settled =
  | { line: ReadyLine; result: SubmitResult }
  | { line: ReadyLine; refusal: LineError }
  /** Its tenant is at a limit of submissions: the line stays ready. */
  | { line: ReadyLine; waits: true }

/** `none`: no line is ready. `waits`: some are, and their tenant is at a limit. `lost`: somebody else has the batch. */
export type SubmittedLines = 'more' | 'waits' | 'none' | 'lost'

/**
 * Submits the next group of lines, as anybody would who has these keys. The results of lines whose job has
 * ended are written at once. A line that meets a limit of submissions is tried again later: nobody is there to send it again.
 */
export async function submitLines(parts: Submission, batch: LeasedBatch): Promise<SubmittedLines> {
  const { db } = parts
  const lines = await readReadyLines(db, batch.id, groupLines, groupBytes)
  if (lines.length === 0) return 'none'
  const settled = await settle(parts, batch, lines)
  const refused = settled.flatMap((item) => ('refusal' in item ? [item] : []))
  const taken = settled.flatMap((item) => ('result' in item ? [item] : []))
  if (taken.length > 0) {
    const opened = taken.map(({ line: { line }, result: { kind, job } }): OpenedLine => ({
      line,
      jobId: job.id,
      started: kind === 'created' || kind === 'rerun',
      replayed: kind === 'replayed' && job.state === 'succeeded',
    }))
    if (!(await openLines(db, batch, opened, leaseMs))) return 'lost'
    parts.waker.wake(lanesToWake(taken.map(({ result }) => result)))
    const ended = taken.filter(({ result: { job } }) => isTerminal(job.state))
    await collect(
      db,
      batch.id,
      ended.map(({ line: { line } }) => line),
    )
  }
  if (refused.length > 0) await refuse(db, batch, refused)
  return settled.some((item) => 'waits' in item) ? 'waits' : 'more'
}

async function settle(parts: Submission, batch: LeasedBatch, lines: readonly ReadyLine[]): Promise<Settled[]> {
  const refused = lines.flatMap((line): Settled[] => (line.refusal === null ? [] : [{ line, refusal: line.refusal }]))
  const good = lines.filter(({ refusal }) => refusal === null)
  return [...refused, ...(await submitGood(parts, batch, good))]
}

/** A group that Postgres refuses as data is halved until the bad line is refused alone. */
async function submitGood(parts: Submission, batch: LeasedBatch, lines: readonly ReadyLine[]): Promise<Settled[]> {
  if (lines.length === 0) return []
  // Asked for each group: what somebody sets for the tenant holds for what is submitted from then on.
  const { defaults, limits } = await readSubmissionRules(parts.db, batch.tenant_id)
  const jobs = lines.map((line) => jobOf(parts, batch, defaults, line))
  try {
    const results = jobs.some(({ reserveUsd }) => mayMeetLimit(limits, reserveUsd))
      ? await submitLimited(parts.db, batch.tenant_id, jobs)
      : await submitBatch(parts.db, jobs)
    return lines.map((line, index) => settledLine(line, results[index] as SubmitResult | RefusedSubmission))
  } catch (error) {
    if (!isDataError(error)) throw error
    if (lines.length === 1) {
      const refusal = { code: 'invalid_request', message: 'The database refuses a value of this request.' }
      return lines.map((line) => ({ line, refusal }))
    }
    const middle = Math.ceil(lines.length / 2)
    return [
      ...(await submitGood(parts, batch, lines.slice(0, middle))),
      ...(await submitGood(parts, batch, lines.slice(middle))),
    ]
  }
}

function settledLine(line: ReadyLine, result: SubmitResult | RefusedSubmission): Settled {
  if (result.kind === 'mismatch') return { line, refusal: lineErrors.reused }
  if (result.kind !== 'refused') return { line, result }
  const { code, detail: message } = result
  return errorRegistry[code].retryable ? { line, waits: true } : { line, refusal: { code, message } }
}

function jobOf(
  { config: { limits } }: Submission,
  batch: LeasedBatch,
  defaults: TenantDefaults,
  line: ReadyLine,
): NewJob {
  // An answer outlives the window, so that a second upload of the file finds it.
  const atLeast = batch.window_seconds + daySeconds
  return {
    id: line.job_id,
    tenantId: batch.tenant_id,
    key: `${batch.key_prefix}/${line.custom_id}`,
    fingerprint: line.fingerprint,
    bodyDigest: null,
    operation: batch.operation,
    model: line.model,
    lane: line.lane,
    request: line.request,
    requestHeaders: batch.request_headers === null ? null : JSON.stringify(batch.request_headers),
    streamed: false,
    ownerBatch: batch.id,
    ...deliveryOf(limits, defaults, {
      priority,
      ttl_seconds: Math.min(wholeSeconds(limits.maxTtlMs), Math.max(defaultTtl(limits, defaults), atLeast)),
      deadline_seconds: Math.max(wholeSeconds(limits.defaultDeadlineMs), atLeast),
    }),
    reserveUsd: line.reserve_usd,
    reserveTokens: line.reserve_tokens,
  }
}

async function refuse(
  db: Db,
  { id, kind }: LeasedBatch,
  refused: readonly { line: ReadyLine; refusal: LineError }[],
): Promise<void> {
  const byLine = new Map(refused.map((item) => [item.line.line, item]))
  await withBatch(db, id, async (transaction, batch) => {
    if (batch === null) return
    // Under the lock: somebody else may have come first.
    const undone = await readLinesWithJobs(transaction, id, [...byLine.keys()], 1)
    const results = undone.flatMap(({ line, state }) => {
      const item = state === 'ready' ? byLine.get(line) : undefined
      return item === undefined ? [] : [withoutAnswer(kind, item.line, 'failed', item.refusal)]
    })
    await writeResults(transaction, batch, results)
  })
}
