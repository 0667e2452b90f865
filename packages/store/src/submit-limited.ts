import { wholeBudgetUsd, type ErrorCode } from '@askonce/core'
import { retryContention } from './errors.ts'
import type { NewJob } from './statements/insert-jobs.ts'
import { countSubmissions, enterSubmissions, type Entry } from './statements/enter-submissions.ts'
import { inRounds, look, makeRun, share, type Found, type SubmitResult } from './submit.ts'
import type { Db } from './tables.ts'

export type RefusalCode = Extract<ErrorCode, 'backlog_full' | 'rate_limited' | 'no_price' | 'invalid_request'>

/** A limit of its tenant keeps a submission from making a job run. Nothing was accepted. */
export interface RefusedSubmission {
  kind: 'refused'
  code: RefusalCode
  /** For the one who sent it. */
  detail: string
}

/** The same, where one submission is waited for. */
export class SubmissionRefusedError extends Error {
  readonly code: RefusalCode

  constructor({ code, detail }: RefusedSubmission) {
    super(detail)
    this.code = code
  }
}

/**
 * Settles submissions of one tenant that has limits: as `submitBatch` does, but what would make a job run is first looked at. What attaches
 * to a job or is answered by one is never refused, and takes no lock.
 *
 * What runs is counted and inserted in one transaction, under a lock on the submissions of this tenant: so the limits hold to the unit
 * whatever is killed, with any number of processes.
 */
export function submitLimited(
  db: Db,
  tenantId: string,
  items: readonly NewJob[],
): Promise<(SubmitResult | RefusedSubmission)[]> {
  return inRounds<RefusedSubmission>(items, async (leaders) => {
    const found = await look(db, leaders)
    const results = new Map<string, SubmitResult | RefusedSubmission>(found.settled)
    const wanting = wantingOf(found)
    if (wanting.length > 0) {
      // Again as a whole: after a deadlock nothing more can be done in a transaction.
      const entered = await retryContention(() => enter(db, tenantId, wanting))
      for (const [id, result] of entered) results.set(id, result)
    }
    const shared = { settled: new Map<string, SubmitResult>(), others: found.others }
    await share(db, shared)
    for (const [id, result] of shared.settled) results.set(id, result)
    return results
  })
}

function wantingOf({ absent, expired, failed }: Found): NewJob[] {
  return [...absent, ...expired, ...failed.map(({ item }) => item)]
}

function enter(
  db: Db,
  tenantId: string,
  items: readonly NewJob[],
): Promise<Map<string, SubmitResult | RefusedSubmission>> {
  return db.transaction().execute(async (transaction) => {
    const entry = await enterSubmissions(transaction, tenantId)
    // Under the lock: others may have come first.
    const found = await look(transaction, items)
    const refused = refuse(entry, wantingOf(found))
    const isAdmitted = ({ id }: NewJob): boolean => !refused.has(id)
    const known = found.settled.size
    await makeRun(
      transaction,
      {
        ...found,
        absent: found.absent.filter(isAdmitted),
        expired: found.expired.filter(isAdmitted),
        failed: found.failed.filter(({ item }) => isAdmitted(item)),
      },
      (run) => run(),
    )
    const run = found.settled.size - known
    if (entry.limits.submissionsPerSecond !== null && run > 0) {
      await countSubmissions(transaction, tenantId, entry.second, entry.submissions + run)
    }
    return new Map<string, SubmitResult | RefusedSubmission>([...found.settled, ...refused])
  })
}

/** Those that may not run, by id. First come, first served. */
function refuse({ limits, queued, submissions }: Entry, wanting: readonly NewJob[]): Map<string, RefusedSubmission> {
  const refused = new Map<string, RefusedSubmission>()
  const { maxQueued, submissionsPerSecond } = limits
  let admitted = 0
  for (const item of wanting) {
    const refusal =
      beyondBudget(item, wholeBudgetUsd(limits)) ??
      (maxQueued !== null && queued + admitted >= maxQueued ? backlogFull(maxQueued) : null) ??
      (submissionsPerSecond !== null && submissions + admitted >= submissionsPerSecond
        ? rateLimited(submissionsPerSecond)
        : null)
    if (refusal === null) admitted += 1
    else refused.set(item.id, refusal)
  }
  return refused
}

function beyondBudget({ reserveUsd, model }: NewJob, budgetUsd: number | null): RefusedSubmission | null {
  if (budgetUsd === null) return null
  if (reserveUsd === null) {
    const detail =
      `This tenant has a budget, and nobody knows what a call of ${JSON.stringify(model)} can cost at most. ` +
      'Give the request an output limit (max_completion_tokens, max_output_tokens, max_tokens), or have the operator give the model a price ' +
      'and max_output_tokens under "prices" in the file that ASKONCE_CONFIG names. Tools that bring input of their own, and tiers with ' +
      'prices of their own, need such a price too.'
    return { kind: 'refused', code: 'no_price', detail }
  }
  if (reserveUsd <= budgetUsd) return null
  const detail =
    `This call can cost up to $${reserveUsd}, which is more than the whole budget of this tenant ($${budgetUsd}). ` +
    'Ask for less output, or send less.'
  return { kind: 'refused', code: 'invalid_request', detail }
}

function backlogFull(limit: number): RefusedSubmission {
  const detail = `This tenant may have ${limit} queued jobs, and has them. Nothing was accepted; send it again when some have run.`
  return { kind: 'refused', code: 'backlog_full', detail }
}

function rateLimited(limit: number): RefusedSubmission {
  const detail = `This tenant may submit ${limit} new jobs a second. Nothing was accepted; send it again.`
  return { kind: 'refused', code: 'rate_limited', detail }
}
