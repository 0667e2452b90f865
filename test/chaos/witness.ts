import { Book, check, type Evidence, type Finding, type JobEvidence, type LedgerEvidence } from './checker.ts'
import type { Fleet } from './fleet.ts'
import type { TenantEvidence } from './limits.ts'
import { followRecord, type Entry } from './record.ts'

interface LedgerRow {
  key: string
  rows: number
  sent: number
}

interface ConsentRow {
  key: string
  consents: number
}

interface JobRow extends JobEvidence {
  key: string
}

const ledgerByKey = `
  select idempotency_key as key, count(*)::int as rows,
         (count(*) filter (where billing is null or billing <> 'none'))::int as sent
  from attempts group by 1`

const consentsByKey = `
  select idempotency_key as key, count(*)::int as consents
  from decisions where action = 'retry' and accept_duplicate_charge group by 1`

const allJobs = `
  select idempotency_key as key, id, state, paid, tries, max_attempts as "maxAttempts",
         encode(sha256(a.response), 'hex') as sha
  from jobs j left join answers a on a.job_id = j.id`

/** Collects what the independent sources say. */
export class Witness {
  readonly book = new Book()
  private readonly fleet: Fleet
  private readonly follow: (() => Entry[])[]
  private last = { calls: 0, ledgerRows: 0 }

  constructor(fleet: Fleet, paths: readonly string[]) {
    this.fleet = fleet
    this.follow = paths.map((path) => followRecord(path))
  }

  /** Reads what the records say by now. */
  readRecords(): void {
    for (const read of this.follow) this.book.add(read())
  }

  /** Promises that are already broken; while Postgres is away, those that need no ledger. */
  async lookMeanwhile(): Promise<Finding[]> {
    // In this order: a call is preceded by its row in the ledger, by the decision that allowed it, and by its line in a record.
    const { byKey } = await this.fleet.upstream.calls()
    const rows = await this.fleet.sql<LedgerRow>(ledgerByKey).catch(() => null)
    const decided = await this.fleet.sql<ConsentRow>(consentsByKey).catch(() => null)
    this.readRecords()
    const consents = decided === null ? null : consentsOf(decided)
    const tenants = await this.tenants()
    const ledger = ledgerOf(rows ?? [])
    const findings = check({ asked: this.book, calls: byKey, ledger, consents, jobs: null, tenants })
    return rows === null ? findings.filter(({ promise }) => promise !== 'missing in the ledger') : findings
  }

  /** Everything, once all is over. */
  async evidence(): Promise<Evidence> {
    const { all, byKey } = await this.fleet.upstream.calls()
    const ledger = ledgerOf(await this.fleet.sql<LedgerRow>(ledgerByKey))
    const consents = consentsOf(await this.fleet.sql<ConsentRow>(consentsByKey))
    const jobs = new Map((await this.fleet.sql<JobRow>(allJobs)).map(({ key, ...job }) => [key, job]))
    this.readRecords()
    this.last = { calls: all, ledgerRows: [...ledger.values()].reduce((sum, { rows }) => sum + rows, 0) }
    return { asked: this.book, calls: byKey, ledger, consents, jobs, tenants: await this.tenants() }
  }

  private tenants(): Promise<TenantEvidence[]> {
    return this.fleet.teams.evidence(this.fleet.upstream.log)
  }

  /** Totals of the last evidence. */
  get totals(): { calls: number; ledgerRows: number } {
    return this.last
  }
}

function consentsOf(rows: readonly ConsentRow[]): Map<string, number> {
  return new Map(rows.map(({ key, consents }) => [key, consents]))
}

function ledgerOf(rows: readonly LedgerRow[]): Map<string, LedgerEvidence> {
  return new Map(rows.map(({ key, ...counts }) => [key, counts]))
}
