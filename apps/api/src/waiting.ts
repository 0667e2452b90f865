import { tenantWaitCause, waitKindOf, waitKinds, type WaitCause, type WaitKind } from '@askonce/core'
import { GroupCommit, readLimitUses, type Db, type JobRow, type LimitUseRow, type WaitingGroup } from '@askonce/store'
import { closedLane, type LaneBook } from './lane-book.ts'
import { patiently } from './patience.ts'

/** Why a queued job does not run yet, as its readers are told. */
export interface WaitingFor {
  kind: WaitKind
  name: string
  reason: string
  until: Date | null
}

/** How long a reading of a tenant's use is good. */
const cacheMs = 1_000
/** An answer does not wait longer for a reading: it then says what is known without it. */
const patienceMs = 300
const maxTenants = 64

/** A reading of what a tenant has used; null: there is none now. */
interface Reading {
  use: LimitUseRow | null
  askedAtMs: number
}

/**
 * Says of queued jobs what they wait for. What a tenant has used is read when a queued job of it is shown, at most once a second, and
 * tenants whose jobs are shown at the same time share a statement.
 */
export class WaitReasons {
  private readonly lanes: LaneBook
  private readonly group: GroupCommit<string, LimitUseRow | null>
  private readonly readings = new Map<string, Promise<Reading>>()

  constructor(db: Db, lanes: LaneBook) {
    this.lanes = lanes
    this.group = new GroupCommit({
      commit: async (tenantIds) => {
        const rows = new Map((await readLimitUses(db, tenantIds)).map((row) => [row.tenant_id, row]))
        return tenantIds.map((id) => rows.get(id) ?? null)
      },
      maxRows: maxTenants,
      maxBytes: Number.POSITIVE_INFINITY,
      maxWaiting: 10 * maxTenants,
      concurrency: 1,
      bytesOf: () => 0,
    })
  }

  /** What this job waits for; null: it is not queued, or it waits for a free place. Never rejects. */
  async of(row: JobRow): Promise<WaitingFor | null> {
    if (row.state !== 'queued') return null
    const { use, askedAtMs } = await this.read(row.tenant_id)
    // By the database's clock, where there is a reading of it.
    const nowMs = use === null ? Date.now() : use.now.getTime() + performance.now() - askedAtMs
    const cause = this.causeOf(row, nowMs, use)
    return cause === null ? null : this.describe(row, cause, use)
  }

  /** The words for a cause that is known. */
  describe(row: JobRow, cause: WaitCause, use: LimitUseRow | null): WaitingFor {
    const kind = waitKindOf[cause]
    switch (cause) {
      case 'schedule':
        return { kind, name: cause, reason: row.error?.code ?? 'scheduled', until: row.run_at }
      case 'lane': {
        const closing = this.lanes.closing(row.lane, row.model)
        return { kind, name: row.lane, reason: closing?.reason ?? closedLane, until: closing?.until ?? null }
      }
      default:
        return { kind, name: cause, ...tenantReason(row, cause, use) }
    }
  }

  private causeOf(row: JobRow, nowMs: number, use: LimitUseRow | null): WaitCause | null {
    if (row.run_at.getTime() > nowMs) return 'schedule'
    if (this.lanes.closing(row.lane, row.model) !== null) return 'lane'
    return use === null ? null : tenantWaitCause(row, use)
  }

  private read(tenantId: string): Promise<Reading> {
    const known = this.readings.get(tenantId)
    if (known !== undefined) return known
    const askedAtMs = performance.now()
    const reading = patiently(this.group.submit(tenantId), undefined, patienceMs).then(
      (use) => ({ use, askedAtMs }),
      // The job is shown all the same.
      () => ({ use: null, askedAtMs }),
    )
    this.readings.set(tenantId, reading)
    setTimeout(() => this.readings.delete(tenantId), cacheMs).unref()
    return reading
  }
}

type TenantCause = Exclude<WaitCause, 'schedule' | 'lane'>

/** Why, and from when on it may go; null where only a change of the limit, or the end of a call, lets it go. */
function tenantReason(
  { tenant_id: tenant, reserve_usd: cost, reserve_tokens: tokens }: JobRow,
  cause: TenantCause,
  use: LimitUseRow | null,
): Pick<WaitingFor, 'reason' | 'until'> {
  const of = `of tenant "${tenant}"`
  if (use === null) return { reason: `${cause} ${of}`, until: null }
  switch (cause) {
    case 'max_running':
      return { reason: `max_running ${of} (${use.max_running}, ${use.running} running)`, until: null }
    case 'calls_per_minute':
      return {
        reason: `calls_per_minute ${of} (${use.calls_per_minute}, ${use.calls} in the last minute)`,
        until: use.calls_until,
      }
    case 'tokens_per_minute': {
      const limit = use.tokens_per_minute ?? 0
      const used = `${limit}, ${use.tokens} in the last minute`
      if (tokens !== null && tokens > limit) {
        const needs = `this call can use ${tokens}, more than all of it, and runs after a minute without any`
        return { reason: `tokens_per_minute ${of} (${used}; ${needs})`, until: null }
      }
      const needs = tokens === null ? '' : `; this call can use ${tokens}`
      return { reason: `tokens_per_minute ${of} (${used}${needs})`, until: use.tokens_until }
    }
    case 'day':
      return budgetReason(`the budget of the day ${of}`, cost, use.budget_day_usd, use.used_day_usd, use.day_until)
    case 'month':
      return budgetReason(
        `the budget of the month ${of}`,
        cost,
        use.budget_month_usd,
        use.used_month_usd,
        use.month_until,
      )
  }
}

/** A call that no whole budget has room for, or that nobody knows the price of, is not helped by the next day. */
function budgetReason(
  what: string,
  cost: number | null,
  budget: number | null,
  used: number,
  until: Date,
): Pick<WaitingFor, 'reason' | 'until'> {
  const most = usd(budget ?? 0)
  if (cost === null) return { reason: `${what} (${most}): nobody knows what this call can cost`, until: null }
  if (cost > (budget ?? 0)) {
    return { reason: `${what} (${most}): this call can cost ${usd(cost)}, more than all of it`, until: null }
  }
  return { reason: `${what} (${most}, ${usd(used)} used; this call can cost ${usd(cost)})`, until }
}

/** `$5.00`, `$0.0012`: cents, and more digits where cents say nothing. */
function usd(amount: number): string {
  return `$${amount.toFixed(amount !== 0 && amount < 0.1 ? 4 : 2)}`
}

/** Queued jobs by what they wait for; `place`: a free place. */
export function waitingByKind(groups: readonly WaitingGroup[]): Record<WaitKind | 'place', number> {
  const counts = { ...(Object.fromEntries(waitKinds.map((kind) => [kind, 0])) as Record<WaitKind, number>), place: 0 }
  for (const { cause, count } of groups) counts[cause === null ? 'place' : waitKindOf[cause]] += count
  return counts
}
