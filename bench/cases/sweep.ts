import { freePort } from '@askonce/embedded'
import { withAskonce, type Askonce } from '../askonce.ts'
import { until, type Bench } from '../bench.ts'
import { apart, type Case, type Measured } from '../case.ts'
import { cleanLoad } from '../load.ts'
import { listens, readMetric } from '../metrics.ts'
import { median } from '../stats.ts'
import { insertTerminalRows } from '../terminal-rows.ts'

const repeats = 5
/** Far below what an API can take: what is asked is how late an answer is, not how many there are. */
const submissionsPerSecond = 300
/** A busy server may take the table's turn late; its workers look once a minute. */
const vacuumMs = 300_000

interface Sizes {
  table: number
  indexes: number
}

async function sizes(system: Askonce): Promise<Sizes> {
  const [row] = await system.sql<{ table: number; indexes: number }>(
    `select pg_table_size('jobs')::float8 / 1e6 as table, pg_indexes_size('jobs')::float8 / 1e6 as indexes`,
  )
  return row ?? { table: Number.NaN, indexes: Number.NaN }
}

/** Rows that the janitor says it has deleted: counting what is left would slow it down. */
async function sweptBy(healthPort: number): Promise<number> {
  return await readMetric(healthPort, 'askonce_swept_total{what="jobs"}')
}

interface Vacuumed {
  count: number
  /** Dead rows that are left: of a vacuum that began beside the sweep, what was deleted after it had passed. */
  dead: number
}

async function vacuums(system: Askonce): Promise<Vacuumed> {
  const [row] = await system.sql<Vacuumed>(
    `select (vacuum_count + autovacuum_count)::int as count, n_dead_tup::float8 as dead
     from pg_stat_user_tables where relname = 'jobs'`,
  )
  return row ?? { count: 0, dead: Number.NaN }
}

interface Repeat {
  rate: number
  without: number
  beside: number
  sizes: Sizes
}

/** Rows that stay are written after those that go, or the table would be cut off behind its last row: it would always be small. */
async function repeat(bench: Bench, system: Askonce, address: string, n: number): Promise<Repeat> {
  const count = bench.options.sweepRows
  const url = system.databaseUrl
  await insertTerminalRows(bench, url, { prefix: `expired-${n}`, count, expiresInSeconds: -1 })
  const kept = Math.ceil(count / 20)
  await insertTerminalRows(bench, url, { prefix: `kept-${n}`, count: kept, expiresInSeconds: 24 * 3_600 })
  const submit = async (durationMs: number): Promise<number> => {
    const request = { kind: 'submit', prefix: bench.fresh('submit') } as const
    const result = await cleanLoad(bench, address, {
      connections: 128,
      warmUpMs: 1_000,
      durationMs,
      rate: submissionsPerSecond,
      request,
    })
    return result.p99
  }
  const durationMs = bench.pick(10_000, 1_000)
  const without = await submit(durationMs)
  const healthPort = await freePort()
  const beganAt = performance.now()
  const janitor = await system.janitor({
    ASKONCE_SWEEP_INTERVAL_SECONDS: '1',
    ASKONCE_HEALTH_PORT: String(healthPort),
  })
  const swept = async (): Promise<number> => {
    await until(
      bench.signal,
      () => listens(healthPort),
      (ready) => ready,
      10_000,
    )
    await until(
      bench.signal,
      () => sweptBy(healthPort),
      (rows) => rows === count,
      600_000,
    )
    return (performance.now() - beganAt) / 1000
  }
  const [beside, seconds] = await Promise.all([submit(durationMs), swept()])
  janitor.signal('SIGTERM')
  await janitor.exited
  // Only the sweep is asked about; what was submitted beside it goes, with what the last repeat kept, and the server cleans up as it does by itself.
  await system.sql(`delete from jobs where state = 'queued' or idempotency_key like $1`, [`kept-${n - 1}-%`])
  const before = await vacuums(system)
  if (bench.options.smoke) await system.sql('vacuum jobs')
  await until(
    bench.signal,
    () => vacuums(system),
    ({ count: now, dead }) => now > before.count && dead < count / 20,
    vacuumMs,
  )
  return { rate: count / seconds, without, beside, sizes: await sizes(system) }
}

async function measure(bench: Bench): Promise<Measured> {
  return await withAskonce(bench, 'redis', async (system) => {
    const address = await system.api()
    const all: Repeat[] = []
    // One before them that is not counted: a page of an index that a vacuum has emptied is used again only after the vacuum that follows, so
    // the second filling takes new ones and every later one finds them.
    await repeat(bench, system, address, 0)
    for (let n = 1; n <= repeats; n += 1) all.push(await repeat(bench, system, address, n))
    const of = (pick: (one: Repeat) => number): number => median(all.map(pick))
    const last = (pick: (size: Sizes) => number): number => {
      const each = all.map((one) => pick(one.sizes))
      return (each.at(-1) ?? Number.NaN) / (each[0] ?? Number.NaN)
    }
    return {
      rate: of(({ rate }) => rate),
      'p99 without': of(({ without }) => without),
      'p99 beside': of(({ beside }) => beside),
      'p99 beside ÷ without': of(({ without, beside }) => beside / without),
      table: of((one) => one.sizes.table),
      indexes: of((one) => one.sizes.indexes),
      'table, fifth ÷ first': last(({ table }) => table),
      'indexes, fifth ÷ first': last(({ indexes }) => indexes),
    }
  })
}

export const sweep: Case = {
  name: 'sweep',
  title: `Expired rows deleted a second by one janitor, and submissions beside it; ${repeats} times over`,
  figures: [
    { name: 'rate', unit: 'rows/s' },
    { name: 'p99 without', unit: 'ms' },
    { name: 'p99 beside', unit: 'ms' },
    { name: 'p99 beside ÷ without', unit: 'times' },
    { name: 'table', unit: 'MB' },
    { name: 'indexes', unit: 'MB' },
    { name: 'table, fifth ÷ first', unit: 'times' },
    { name: 'indexes, fifth ÷ first', unit: 'times' },
  ],
  targets: [
    { figure: 'rate', of: 'Askonce', against: null, bound: 'at least', factor: 20_000 },
    { figure: 'p99 beside ÷ without', of: 'Askonce', against: null, bound: 'at most', factor: 2 },
    // Flat: what the free space map rounds up is no growth.
    { figure: 'table, fifth ÷ first', of: 'Askonce', against: null, bound: 'at most', factor: 1.05 },
    { figure: 'indexes, fifth ÷ first', of: 'Askonce', against: null, bound: 'at most', factor: 1.05 },
  ],
  // One measurement repeats it five times.
  rounds: 1,
  open: (bench) => Promise.resolve(apart([{ name: 'Askonce', measure: () => measure(bench) }])),
}
