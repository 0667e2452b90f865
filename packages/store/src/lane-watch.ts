import { readLanes } from './statements/lanes.ts'
import type { Db, LaneReading, LaneState } from './tables.ts'

/** While a lane is closed or Postgres is away: what waits for it goes on that soon. */
const refreshMs = 1_000
/** While all lanes are open a change is said on the channel, so a look is for what was not heard. */
const idleRefreshMs = 5_000

interface Seen extends LaneReading {
  /** On this process's monotonic clock. */
  closedUntil: number
}

/**
 * What a process believes of the lanes: read whenever somebody says that they changed, every second while one is closed, and every
 * five while none is. Stale by that much, which costs one refused call. While Postgres is away the last reading stays.
 */
export class LaneWatch {
  private readonly db: Db
  private readonly onChange: () => void
  private readonly onError: (error: unknown) => void
  /** By lane, and in it by model; the empty one is the whole lane. */
  private lanes = new Map<string, Map<string, Seen>>()
  private timer: NodeJS.Timeout
  private closed = false
  private reading: Promise<void> | null = null

  constructor(db: Db, options: { onChange?: () => void; onError?: (error: unknown) => void } = {}) {
    this.db = db
    this.onChange = options.onChange ?? (() => undefined)
    this.onError = options.onError ?? (() => undefined)
    this.timer = setTimeout(() => void this.refresh(), refreshMs)
  }

  /** Reads now; calls at the same time share one reading. Never rejects. */
  refresh(): Promise<void> {
    this.reading ??= this.read().finally(() => {
      this.reading = null
    })
    return this.reading
  }

  close(): void {
    this.closed = true
    clearTimeout(this.timer)
  }

  /** The reading of a lane, or of one model in it. */
  get(name: string, model = ''): LaneReading | undefined {
    return this.lanes.get(name)?.get(model)
  }

  /** Every lane that was ever closed, or has a model that was. */
  names(): string[] {
    return [...this.lanes.keys()]
  }

  /** The models of a lane that are closed at this moment. */
  closedModels(name: string): LaneReading[] {
    const models = [...(this.lanes.get(name)?.values() ?? [])]
    return models.filter(({ model }) => model !== '' && this.closedBy(name, model) !== null)
  }

  /** What closes the lane, or one model in it, at this moment. A breaker whose wait is over still says `breaker` in {@link get}. */
  closedBy(name: string, model = ''): Exclude<LaneState, 'open'> | null {
    const lane = this.lanes.get(name)?.get(model)
    if (lane === undefined || lane.state === 'open') return null
    if (lane.state === 'stopped') return 'stopped'
    return performance.now() < lane.closedUntil ? lane.state : null
  }

  private async read(): Promise<void> {
    let nextMs = refreshMs
    try {
      const rows = await readLanes(this.db)
      const now = performance.now()
      const lanes = new Map<string, Map<string, Seen>>()
      for (const row of rows) {
        const models = lanes.get(row.name) ?? new Map<string, Seen>()
        lanes.set(row.name, models.set(row.model, { ...row, closedUntil: now + row.remaining_ms }))
      }
      this.lanes = lanes
      if (rows.every(({ state }) => state === 'open')) nextMs = idleRefreshMs
    } catch (error) {
      this.onError(error)
    }
    clearTimeout(this.timer)
    if (!this.closed) this.timer = setTimeout(() => void this.refresh(), nextMs)
    this.onChange()
  }
}
