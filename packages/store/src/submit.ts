import { isSettled, isTerminal } from '@askonce/core'
import { retryContention, StoreUnavailableError } from './errors.ts'
import { insertJobs, type NewJob } from './statements/insert-jobs.ts'
import { readByKeys, type KeyRow } from './statements/read-jobs.ts'
import { disownJobs } from './statements/owned-jobs.ts'
import { rerunFailed } from './statements/run-again.ts'
import { isMadeUp, takeOverExpired } from './statements/take-over-expired.ts'
import type { Db, JobRow } from './tables.ts'

/**
 * What a submission got (DESIGN.md §3). `created`: the key was new or expired, or had a made-up answer; `rerun`: a failed job runs again;
 * `attached`: the job is unfinished; `replayed`: it has ended, with an answer or without; `mismatch`: the key names another request.
 */
export type SubmitKind = 'created' | 'rerun' | 'attached' | 'replayed' | 'mismatch'

export interface SubmitResult {
  kind: SubmitKind
  job: JobRow
}

/** Rounds before we give up: each lost race (a key taken over, swept or rerun by somebody else meanwhile) costs one. */
const maxRounds = 6

/** What is tried first: right for new keys, or for known ones. It decides how many statements are needed, and nothing else. */
export type SubmitOrder = 'insert first' | 'look first'

/**
 * Settles a batch of submissions in a handful of statements. Equal keys of one batch are folded first: `on conflict do update`
 * over the same key twice would fail the whole batch, and the second can be answered from the first.
 */
export function submitBatch(
  db: Db,
  items: readonly NewJob[],
  order: SubmitOrder = 'insert first',
): Promise<SubmitResult[]> {
  return inRounds<SubmitResult>(items, (leaders) => settleLeaders(db, leaders, order))
}

/** Has the leaders of distinct keys settled, round after round, until each of the items has its result. */
export async function inRounds<Result extends { kind: string }>(
  items: readonly NewJob[],
  settle: (leaders: readonly NewJob[]) => Promise<ReadonlyMap<string, Result | SubmitResult>>,
): Promise<(Result | SubmitResult)[]> {
  const results: (Result | SubmitResult | undefined)[] = Array.from({ length: items.length })
  let open = items.map((_, index) => index)
  for (let round = 0; open.length > 0; round += 1) {
    if (round === maxRounds) {
      throw new StoreUnavailableError(`${open.length} keys kept changing hands for ${maxRounds} rounds; try again`)
    }
    await settleRound(items, open, results, settle)
    open = open.filter((index) => results[index] === undefined)
  }
  return results as (Result | SubmitResult)[]
}

async function settleRound<Result extends { kind: string }>(
  items: readonly NewJob[],
  open: readonly number[],
  results: (Result | SubmitResult | undefined)[],
  settle: (leaders: readonly NewJob[]) => Promise<ReadonlyMap<string, Result | SubmitResult>>,
): Promise<void> {
  const byKey = new Map<string, number[]>()
  for (const index of open) {
    const key = keyOf(items[index] as NewJob)
    byKey.set(key, [...(byKey.get(key) ?? []), index])
  }
  const leaders = [...byKey.values()].map((group) => items[group[0] as number] as NewJob)
  const settled = await settle(leaders)
  for (const group of byKey.values()) {
    const [leader, ...followers] = group as [number, ...number[]]
    const result = settled.get((items[leader] as NewJob).id)
    if (result === undefined) continue
    results[leader] = result
    for (const index of followers) {
      // What kept the first of a key from running keeps the others of this batch too.
      const follower = 'job' in result ? follow(result, items[index] as NewJob) : result
      if (follower !== undefined) results[index] = follower
    }
  }
}

/** What a later submission of the same batch gets from the leader's row; undefined: it needs a look of its own. */
function follow({ kind, job }: SubmitResult, item: NewJob): SubmitResult | undefined {
  if (!job.fingerprint.equals(item.fingerprint)) return { kind: 'mismatch', job }
  // A failed job that was replayed to the leader needs consent from everybody; any other may run again for this one.
  if (job.state === 'failed' && kind !== 'replayed') return undefined
  if (isOthers(job, item)) return undefined
  return { kind: kindOf(job), job }
}

export function kindOf(job: JobRow): SubmitKind {
  return isSettled(job.state) && job.state !== 'uncertain' ? 'replayed' : 'attached'
}

/** Unfinished, and as far as the row knows nobody but a batch wants it: but now this submission does. */
function isOthers(job: JobRow, { ownerBatch }: NewJob): boolean {
  return !isTerminal(job.state) && job.owner_batch !== null && job.owner_batch !== ownerBatch
}

/** It failed, or was cancelled only because its batch ended. A person's cancel is a decision, and stays. */
function mayRunAgain({ state, owner_batch, may_run_unasked }: KeyRow): boolean {
  return may_run_unasked && (state === 'failed' || (state === 'cancelled' && owner_batch !== null))
}

function keyOf(item: NewJob): string {
  return `${item.tenantId}\n${item.key}`
}

/** One round over distinct keys: results by the id of the item. */
async function settleLeaders(
  db: Db,
  leaders: readonly NewJob[],
  order: SubmitOrder,
): Promise<Map<string, SubmitResult>> {
  const inserted = order === 'insert first' ? await retryContention(() => insertJobs(db, leaders)) : []
  const settled = new Map(inserted.map((job): [string, SubmitResult] => [job.id, { kind: 'created', job }]))
  const rest = leaders.filter((item) => !settled.has(item.id))
  if (rest.length === 0) return settled
  const found = await look(db, rest, settled)
  // After an insert that met their rows: swept or deleted since, and left to the next round, as are those that are lost to others now.
  if (order === 'insert first') found.absent = []
  await makeRun(db, found, retryContention)
  await share(db, found)
  return settled
}

/** What a look at the keys of submissions found. */
export interface Found {
  /** What needs nothing more; by the id of the submission. What is done for the others comes in here too. */
  settled: Map<string, SubmitResult>
  absent: NewJob[]
  /** Expired, or with a made-up answer. */
  expired: NewJob[]
  failed: { item: NewJob; row: KeyRow }[]
  /** Unfinished jobs that so far only a batch wants. */
  others: { item: NewJob; row: KeyRow }[]
}

/** Looks at the rows of distinct keys, and changes nothing. */
export async function look(
  db: Db,
  items: readonly NewJob[],
  settled: Map<string, SubmitResult> = new Map(),
): Promise<Found> {
  const rows = await readByKeys(
    db,
    items.map((item) => item.tenantId),
    items.map((item) => item.key),
  )
  const rowByKey = new Map(rows.map((row) => [`${row.tenant_id}\n${row.idempotency_key}`, row]))
  const absent: NewJob[] = []
  const expired: NewJob[] = []
  const failed: { item: NewJob; row: KeyRow }[] = []
  const others: { item: NewJob; row: KeyRow }[] = []
  for (const item of items) {
    const row = rowByKey.get(keyOf(item))
    if (row === undefined) {
      absent.push(item)
      continue
    }
    // Our id: an earlier insert of ours had committed although its reply was lost.
    if (row.id === item.id) settled.set(item.id, { kind: 'created', job: row })
    else if (row.expired || isMadeUp(row, item)) expired.push(item)
    else if (!row.fingerprint.equals(item.fingerprint)) settled.set(item.id, { kind: 'mismatch', job: row })
    else if (mayRunAgain(row)) failed.push({ item, row })
    else if (isOthers(row, item)) others.push({ item, row })
    else settled.set(item.id, { kind: kindOf(row), job: row })
  }
  return { settled, absent, expired, failed, others }
}

/** Makes what was found run that has to: each statement by itself, or all in the transaction that `db` is. */
export async function makeRun(
  db: Db,
  { settled, absent, expired, failed }: Found,
  retry: <T>(run: () => Promise<T>) => Promise<T>,
): Promise<void> {
  const created = (job: JobRow): void => void settled.set(job.id, { kind: 'created', job })
  if (absent.length > 0) for (const job of await retry(() => insertJobs(db, absent))) created(job)
  if (expired.length > 0) for (const job of await retry(() => takeOverExpired(db, expired))) created(job)
  if (failed.length > 0) {
    const inputs = failed.map(({ item, row }) => ({
      id: row.id,
      fingerprint: item.fingerprint,
      ownerBatch: item.ownerBatch,
    }))
    const rerun = new Map((await retry(() => rerunFailed(db, inputs))).map((job) => [job.id, job]))
    for (const { item, row } of failed) {
      const job = rerun.get(row.id)
      if (job !== undefined) settled.set(item.id, { kind: 'rerun', job })
    }
  }
}

/** Notes that unfinished jobs are wanted by somebody besides their batch. */
export async function share(db: Db, { settled, others }: Pick<Found, 'settled' | 'others'>): Promise<void> {
  if (others.length === 0) return
  // Before anybody is told that the job is his too: from this commit on the end of the batch does not cancel it. If the batch
  // was faster, the row is not returned, and the next round finds it cancelled with its batch and runs it again.
  const ids = others.map(({ row }) => row.id)
  const shared = new Map((await retryContention(() => disownJobs(db, ids))).map((job) => [job.id, job]))
  for (const { item, row } of others) {
    const job = shared.get(row.id)
    if (job !== undefined) settled.set(item.id, { kind: kindOf(job), job })
  }
}

/** The lanes in which a batch of submissions has made a job run: whoever takes jobs from them is to be woken. */
export function lanesToWake(results: readonly SubmitResult[]): string[] {
  const made = results.filter(({ kind }) => kind === 'created' || kind === 'rerun')
  return [...new Set(made.map(({ job }) => job.lane))]
}
