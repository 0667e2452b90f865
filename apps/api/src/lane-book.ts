import type { LaneConfig } from '@askonce/config'
import { errorRegistry, type ErrorCode } from '@askonce/core'
import type { LaneRow, LaneState, LaneWatch } from '@askonce/store'

/** What closes a lane, or one model in it. */
interface Closing {
  state: LaneState
  reason: string | null
  code: string | null
  until: Date | null
}

interface LaneView extends Closing {
  object: 'lane'
  name: string
  kind: LaneConfig['kind'] | null
}

interface FullLaneView extends LaneView {
  /** Those that are closed while the lane is open, or beside it. */
  models: (Closing & { model: string })[]
}

/** Said of a lane that gives no code of ours. */
export const closedLane = 'The lane is closed'

/** What this process knows of the lanes: those it is configured with, and those that the database has a row of. */
export class LaneBook {
  private readonly configured: readonly LaneConfig[]
  private readonly watch: LaneWatch

  constructor(configured: readonly LaneConfig[], watch: LaneWatch) {
    this.configured = configured
    this.watch = watch
  }

  /** What keeps queued jobs of this model from running; null: the lane is open to them. In our words: it is for everybody. */
  closing(name: string, model: string): { reason: string; until: Date | null } | null {
    const { watch } = this
    const lane = watch.get(name)
    if (lane !== undefined && (lane.state === 'breaker' || watch.closedBy(name) !== null)) {
      return { reason: publicReason(lane.code) ?? closedLane, until: lane.until }
    }
    if (watch.closedBy(name, model) === null) return null
    const row = watch.get(name, model)
    const reason = publicReason(row?.code ?? null) ?? closedLane
    return { reason: `Model ${model}: ${reason}`, until: row?.until ?? null }
  }

  /** For everybody: without the providers' words, which may quote a request, and without the models, which callers name. */
  allPublic(): LaneView[] {
    return this.names().map((name) => {
      const view = this.view(name, this.watch.get(name))
      return Object.assign(view, { reason: publicReason(view.code) })
    })
  }

  /** With the providers' own words: for operators. */
  all(): FullLaneView[] {
    return this.names().map((name) => this.full(name, this.watch.get(name)))
  }

  /** How many models of each lane are paused. */
  pausedModels(): { name: string; count: number }[] {
    return this.names().map((name) => ({ name, count: this.watch.closedModels(name).length }))
  }

  /** Null: neither configured nor in the database. */
  find(name: string, row: LaneRow | null): FullLaneView | null {
    const known = row !== null || this.configured.some((lane) => lane.name === name)
    return known ? this.full(name, this.watch.get(name)) : null
  }

  private names(): string[] {
    return [...new Set([...this.configured.map(({ name }) => name), ...this.watch.names()])]
  }

  private full(name: string, row: LaneRow | undefined): FullLaneView {
    const models = this.watch.closedModels(name)
    return {
      ...this.view(name, row),
      models: models.map(({ model, state, reason, code, until }) => ({ model, state, reason, code, until })),
    }
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
