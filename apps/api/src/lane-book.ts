import type { LaneConfig } from '@askonce/config'
import { errorRegistry, type ErrorCode } from '@askonce/core'
import type { LaneRow, LaneState, LaneWatch } from '@askonce/store'

interface LaneView {
  object: 'lane'
  name: string
  kind: LaneConfig['kind'] | null
  state: LaneState
  reason: string | null
  code: string | null
  until: Date | null
}

/** What this process knows of the lanes: those it is configured with, and those that the database has a row of. */
export class LaneBook {
  private readonly configured: readonly LaneConfig[]
  private readonly watch: LaneWatch

  constructor(configured: readonly LaneConfig[], watch: LaneWatch) {
    this.configured = configured
    this.watch = watch
  }

  /** Whether a new job of this lane goes to BullMQ at once. Behind a breaker the janitor lets one probe at a time through. */
  isOpen(name: string): boolean {
    return this.watch.closedBy(name) === null && this.watch.get(name)?.state !== 'breaker'
  }

  /** Why a queued job of this lane does not run; null: the lane is open. */
  waitingFor(name: string): { lane: string; reason: string; until: Date | null } | null {
    if (this.isOpen(name)) return null
    const lane = this.watch.get(name)
    return { lane: name, reason: publicReason(lane?.code ?? null) ?? 'closed', until: lane?.until ?? null }
  }

  /** For everybody. */
  allPublic(): LaneView[] {
    return this.all().map((view) => Object.assign(view, { reason: publicReason(view.code) }))
  }

  /** With the providers' own words: for administrators. */
  all(): LaneView[] {
    const names = new Set([...this.configured.map(({ name }) => name), ...this.watch.all().map(({ name }) => name)])
    return [...names].map((name) => this.view(name, this.watch.get(name)))
  }

  /** Null: neither configured nor in the database. */
  find(name: string, row: LaneRow | null): LaneView | null {
    const known = row !== null || this.configured.some((lane) => lane.name === name)
    return known ? this.view(name, row ?? undefined) : null
  }

  private view(name: string, row: LaneRow | undefined): LaneView {
    // A pause that is over has no end written anywhere: the lane is open again.
    const over = row?.state === 'paused' && this.watch.closedBy(name) === null
    const closed = row !== undefined && row.state !== 'open' && !over
    return {
      object: 'lane',
      name,
      kind: this.configured.find((lane) => lane.name === name)?.kind ?? null,
      state: closed ? row.state : 'open',
      reason: closed ? row.reason : null,
      code: closed ? row.code : null,
      until: closed ? row.until : null,
    }
  }
}

/** In our words: a provider's may quote the request of another tenant. */
function publicReason(code: string | null): string | null {
  return code !== null && Object.hasOwn(errorRegistry, code) ? errorRegistry[code as ErrorCode].title : null
}
