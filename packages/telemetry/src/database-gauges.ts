import { Gauge, type Registry } from 'prom-client'

/** What the database knows of the whole system; the same from every process. */
export interface DatabaseFigures {
  jobs: Record<string, number>
  /** Queued jobs by what they wait for. */
  waiting: Record<string, number>
  oldestQueuedSeconds: number
  oldestUncertainSeconds: number
  workersAlive: number
  openAttempts: number
}

/** `check` rejects while the database takes no writes: then its figures show all the same. */
interface Source {
  read: () => Promise<DatabaseFigures>
  check: () => Promise<void>
}

/** Shortest time between two readings: scrapes of several collectors share one. */
const cacheMs = 2_000
/** A scrape waits no longer than this for the database. */
const patienceMs = 2_000

/** Gauges over a reading of the database. One reading at a time, shared by all scrapes that come meanwhile. */
export function createDatabaseGauges(prefix: string, registers: Registry[]) {
  const gauge = (name: string, help: string): Gauge => new Gauge({ name: prefix + name, help, registers })
  const up = gauge('database_up', '1 while the database answers and takes writes')
  const jobs = new Gauge({
    name: `${prefix}jobs`,
    help: 'Jobs by state; succeeded is an estimate',
    labelNames: ['state'],
    registers,
  })
  const waiting = new Gauge({
    name: `${prefix}jobs_waiting`,
    help: 'Queued jobs by what they wait for, at most 10,000 of a tenant in a lane and 100,000 in all',
    labelNames: ['reason'],
    registers,
  })
  const single = {
    oldestQueuedSeconds: gauge('oldest_queued_seconds', 'How long the oldest due job has been waiting'),
    oldestUncertainSeconds: gauge('oldest_uncertain_seconds', 'How long the oldest uncertain job has been held'),
    workersAlive: gauge('workers_alive', 'Workers that are not dead'),
    openAttempts: gauge('open_attempts', 'Attempts without an end'),
  }
  const unlabelled = [up, ...Object.values(single)]
  let source: Source | null = null
  let underWay: Promise<void> | null = null
  let readAtMs = Number.NEGATIVE_INFINITY

  // Absent, not stale or zero: an alert on an old figure would be silent, one on zero would lie.
  const clear = (): void => {
    jobs.reset()
    waiting.reset()
    for (const one of unlabelled) one.remove()
  }

  const show = (figures: DatabaseFigures, takesWrites: boolean): void => {
    clear()
    up.set(takesWrites ? 1 : 0)
    for (const [state, count] of Object.entries(figures.jobs)) jobs.set({ state }, count)
    for (const [reason, count] of Object.entries(figures.waiting)) waiting.set({ reason }, count)
    for (const [name, one] of Object.entries(single)) one.set(figures[name as keyof typeof single])
  }

  const update = async ({ read, check }: Source): Promise<void> => {
    try {
      const takesWrites = check().then(
        () => true,
        () => false,
      )
      show(await read(), await takesWrites)
    } catch {
      clear()
      up.set(0)
    }
    readAtMs = performance.now()
    underWay = null
  }

  clear()
  return {
    readWith(given: Source): void {
      source = given
    },
    /** Never rejects. A database that does not answer in time shows as down; its late reading still counts for the next scrape. */
    async refresh(): Promise<void> {
      if (source === null || performance.now() - readAtMs < cacheMs) return
      underWay ??= update(source)
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<'late'>((resolve) => {
        timer = setTimeout(() => resolve('late'), patienceMs)
      })
      if ((await Promise.race([underWay, late])) === 'late') {
        clear()
        up.set(0)
      }
      clearTimeout(timer)
    },
  }
}
