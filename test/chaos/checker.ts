import { beyondLimits, type TenantEvidence } from './limits.ts'
import type { Entry, Policy } from './record.ts'

/** A row of `jobs`, as far as the checker compares it. */
export interface JobEvidence {
  id: string
  state: string
  paid: number
  tries: number
  maxAttempts: number
  /** Digest of the stored answer; null when there is none. */
  sha: string | null
}

/** The ledger's rows of one key. */
export interface LedgerEvidence {
  rows: number
  /** Attempts that were sent, or may have been: those that are open, maybe or billed. */
  sent: number
}

/** What an independent observer has: the records of those who asked, the upstream's own counts, and Postgres to compare. */
export interface Evidence {
  /** From the producers' and the probe's records. */
  asked: Book
  /** Calls that the upstream would bill, by key. Read before the ledger. */
  calls: ReadonlyMap<string, number>
  ledger: ReadonlyMap<string, LedgerEvidence>
  /** Retries with consent that were carried out, by key, as the table of decisions has them. Null: it could not be read. */
  consents: ReadonlyMap<string, number> | null
  /** Null while the run goes on: then nothing can be said yet about what is lost or held. */
  jobs: ReadonlyMap<string, JobEvidence> | null
  /** Those that have limits. */
  tenants: readonly TenantEvidence[]
}

/** One key, as those who asked know it. */
interface AskedKey {
  policy: Policy
  maxPaid: number
  /** How often somebody has asked for a retry with consent, or was about to. */
  consents: number
  ids: Set<string>
  answers: Set<string>
  final: { id: string; state: string; sha: string | null } | null
}

/** All that the records say, by key. */
export class Book {
  readonly keys = new Map<string, AskedKey>()

  add(entries: Iterable<Entry>): void {
    for (const entry of entries) {
      const known = this.keys.get(entry.key)
      if (entry.type === 'asked') {
        if (known !== undefined) continue
        const { policy, maxPaid } = entry
        this.keys.set(entry.key, { policy, maxPaid, consents: 0, ids: new Set(), answers: new Set(), final: null })
      } else if (known === undefined) throw new Error(`the record tells of ${entry.key}, which nobody asked for`)
      else if (entry.type === 'accepted') known.ids.add(entry.id)
      else if (entry.type === 'answer') known.answers.add(entry.sha)
      else if (entry.type === 'consent') known.consents += 1
      else known.final = { id: entry.id, state: entry.state, sha: entry.sha }
    }
  }

  /** Keys of which a 2xx is on record. */
  accepted(): number {
    let count = 0
    for (const { ids } of this.keys.values()) if (ids.size > 0) count += 1
    return count
  }
}

export interface Finding {
  promise:
    | 'lost'
    | 'two answers'
    | 'missing in the ledger'
    | 'beyond the budget'
    | 'held without cause'
    | 'beyond a limit'
    | 'beyond a budget of dollars'
  /** A key; of limits and budgets of dollars, the tenant. */
  key: string
  /** How many calls, or dollars, where it is about them. */
  count: number
  what: string
}

const ended = new Set(['succeeded', 'failed', 'cancelled', 'uncertain'])

/**
 * Compares the records, the upstream's counts and Postgres. Empty: every promise was kept.
 *
 * It does not look at keys that were asked for and never accepted beyond what they cost: whether they exist is open.
 */
export function check(evidence: Evidence): Finding[] {
  const { asked, calls, ledger, consents, jobs, tenants } = evidence
  const findings: Finding[] = []
  const find = (promise: Finding['promise'], key: string, what: string, count = 1): void => {
    findings.push({ promise, key, what, count })
  }
  for (const [key, known] of asked.keys) {
    const job = jobs?.get(key)
    const answers = new Set(known.answers)
    for (const sha of [job?.sha, known.final?.sha]) if (typeof sha === 'string') answers.add(sha)
    if (answers.size > 1) find('two answers', key, `${answers.size} different answers were shown or stored`)
    const lost = known.ids.size > 1 ? 'one key was accepted as two jobs' : jobs === null ? null : lossOf(known, job)
    if (lost !== null) find('lost', key, lost)
    const cause = job?.state === 'uncertain' ? heldWithoutCause(known, job) : null
    if (cause !== null) find('held without cause', key, cause)
  }
  for (const [key, made] of calls) {
    const known = asked.keys.get(key)
    const sent = ledger.get(key)?.sent ?? 0
    if (made > sent) find('missing in the ledger', key, `${made} calls, ${sent} attempts that may be them`, made - sent)
    // One that was refused or never arrived allows nothing, and one that nobody asked for neither.
    const carriedOut = consents === null ? Infinity : (consents.get(key) ?? 0)
    const allowed = known === undefined ? 0 : unaskedBudget(known) + Math.min(known.consents, carriedOut)
    if (made > allowed) find('beyond the budget', key, `${made} calls, ${allowed} allowed`, made - allowed)
  }
  for (const tenant of tenants) {
    for (const { kind, what, count } of beyondLimits(tenant)) {
      find(kind === 'calls' ? 'beyond a limit' : 'beyond a budget of dollars', tenant.tenant, what, count)
    }
  }
  return findings
}

/** Payments that may happen without anybody's consent: only under `rerun` is there a second one. */
function unaskedBudget({ policy, maxPaid }: AskedKey): number {
  return policy === 'rerun' ? maxPaid : 1
}

function lossOf({ ids, answers, final }: AskedKey, job: JobEvidence | undefined): string | null {
  const [id] = ids
  if (id === undefined) return null
  if (job === undefined) return 'accepted, and there is no such job'
  if (job.id !== id) return 'accepted, and another job stands under its key'
  if (!ended.has(job.state)) return `still ${job.state} when everything was over`
  if (answers.size > 0 && job.sha === null) return 'an answer was shown and is not stored'
  if (final === null) return 'the API does not know it'
  if (final.id !== id) return 'the API names another job under its key'
  // A late success may have been stored between the API's reply and the reading of the row.
  const late = job.state === 'succeeded' && (final.state === 'uncertain' || final.state === 'failed')
  if (final.state !== job.state && !late) return `the API says ${final.state}, the row says ${job.state}`
  return null
}

function heldWithoutCause({ policy, maxPaid }: AskedKey, { paid, tries, maxAttempts }: JobEvidence): string | null {
  if (paid === 0) return 'held, and nothing may have been billed'
  if (policy === 'fail') return 'held under the policy fail'
  if (policy === 'rerun' && paid < maxPaid && tries < maxAttempts) return 'held although it may run unasked'
  return null
}

/** Keys with a finding of one kind, and the calls, or dollars, that they stand for. */
export function tally(findings: readonly Finding[], promise: Finding['promise']): { keys: number; count: number } {
  const those = findings.filter((finding) => finding.promise === promise)
  return { keys: those.length, count: those.reduce((sum, { count }) => sum + count, 0) }
}
