import { readLanes } from './statements/lanes.ts'
import type { Db, LaneReading, LaneState } from './tables.ts'

const refreshMs = 1_000

interface Seen extends LaneReading {
  /** On this process's monotonic clock. */
  closedUntil: number
}

/**
 * What a process believes of the lanes: read every second and whenever somebody says that they changed. Stale by that much,
 * which costs one refused call. While Postgres is away the last reading stays.
 */
export class LaneWatch {
  private readonly db: Db
  private readonly onChange: () => void
  private readonly onError: (error: unknown) => void
  private lanes = new Map<string, Seen>()
  private readonly timer: NodeJS.Timeout
  private reading: Promise<void> | null = null

  constructor(db: Db, options: { onChange?: () => void; onError?: (error: unknown) => void } = {}) {
    this.db = db
    this.onChange = options.onChange ?? (() => undefined)
    this.onError = options.onError ?? (() => undefined)
    this.timer = setInterval(() => void this.refresh(), refreshMs)
  }

  /** Reads now; calls at the same time share one reading. Never rejects. */
  refresh(): Promise<void> {
    this.reading ??= this.read().finally(() => {
      this.reading = null
    })
    return this.reading
  }

  close(): void {
    clearInterval(this.timer)
  }

  get(name: string): LaneReading | undefined {
    return this.lanes.get(name)
  }

  all(): LaneReading[] {
    return [...this.lanes.values()]
  }

  /** `open`, or what closes the lane at this moment. A breaker whose wait is over still says `breaker` in {@link get}. */
  closedBy(name: string): Exclude<LaneState, 'open'> | null {
    const lane = this.lanes.get(name)
    if (lane === undefined || lane.state === 'open') return null
    if (lane.state === 'stopped') return 'stopped'
    return performance.now() < lane.closedUntil ? lane.state : null
  }

  private async read(): Promise<void> {
    try {
      const rows = await readLanes(this.db)
      const now = performance.now()
      this.lanes = new Map(rows.map((row) => [row.name, { ...row, closedUntil: now + row.remaining_ms }]))
    } catch (error) {
      this.onError(error)
    }
    this.onChange()
  }
}
