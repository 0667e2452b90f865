import { setTimeout as sleep } from 'node:timers/promises'
import { NoPasswordError, tlsAdvice } from '@askonce/address'
import type { Config } from '@askonce/config'
import type { ConnectionLimit, Database, LaneReading, ServerFacts, Statistics } from '@askonce/store'
import { databaseUrl, unreadNotice } from '../database.ts'
import { checkGrants, schemaTodo } from './grants.ts'
import { checkPooler } from './pooler.ts'
import { reasonOf } from '../errors.ts'
import { count, relative, roughly } from '../format.ts'
import { type Check, ok, problem, warn } from './check.ts'
import { waitingChecks } from './waiting.ts'

const newestMajor = 18
/** Processes of one small installation (API, worker, janitor), what they open beside their pools, and BullMQ on Postgres for each lane. */
const processes = 3
const besidePools = 8
const bullmqPerLane = 15
/** Share of a limit from which on it is nearly reached. */
const nearlyAll = 0.9
const skewWarnMs = 5_000
/** Workers beat twice a second; one that has not in this time does not live. */
const beatWatchMs = 1_500

const refusedTodo = 'Correct that in DATABASE_URL, or at the server.'

/** Everything that the database can tell. Stops early where the rest would only repeat the first problem. */
export async function checkDatabase(config: Config): Promise<Check[]> {
  const url = databaseUrl(config)
  if (url === null) {
    const detail = `no embedded PostgreSQL runs on ${config.dataDir}, and DATABASE_URL is not set`
    return [problem('postgres', detail, `Start it with: npm start (or set DATABASE_URL).${unreadNotice(config)}`)]
  }
  const { assertOwnSessions, oldestPostgres, openDatabase, PoolerError, readServerFacts } =
    await import('@askonce/store')
  const database = openDatabase({ url, name: 'askonce doctor', poolSize: 2 })
  try {
    await assertOwnSessions(url)
    const askedMs = Date.now()
    const facts = await readServerFacts(database.db)
    const checks = [
      ...serverChecks(facts, oldestPostgres),
      skew(facts, askedMs, Date.now()),
      ...facts.limits.map((limit) => connections(limit, config)),
      await checkWrites(database),
    ]
    const schema = await checkSchema(url, config)
    checks.push(...(await checkGrants(url, config)), ...schema)
    if (schema[0]?.status === 'ok')
      checks.push(...(await checkPooler(config, url)), ...(await contentChecks(database, config)))
    return checks
  } catch (error) {
    const what =
      config.database.url === null
        ? 'the embedded PostgreSQL'
        : String(config.database.directUrl ?? config.database.url)
    if (error instanceof PoolerError) return [problem('sessions', error.message, 'Until then no process starts.')]
    const { findRefusal, SessionSettingsError, sqlState } = await import('@askonce/store')
    const said = reasonOf(error)
    const found = await findRefusal(url, error)
    if (found instanceof SessionSettingsError) return [problem('sessions', found.what, found.todo)]
    if (sqlState(error) === '42501') return [problem('postgres', `${what} refuses: ${said}`, refusedTodo)]
    if (found !== null) return [problem('postgres', `${what} refuses: ${found.message}`, found.todo)]
    const advice = tlsAdvice(error, 'postgres')
    if (sqlState(error) !== '' || error instanceof NoPasswordError) {
      const todo = /unsupported startup parameter/.test(said)
        ? 'That is a pooler. Set DATABASE_DIRECT_URL to the server behind it.'
        : refusedTodo
      return [problem('postgres', `${what} refuses: ${said}`, advice ?? todo)]
    }
    const todo = 'Is it running, and are address, user and password in DATABASE_URL right?'
    const verb = advice === null ? 'does not answer' : 'cannot be used'
    return [problem('postgres', `${what} ${verb}: ${said}`, advice ?? todo)]
  } finally {
    await database.close()
  }
}

function serverChecks({ versionNumber, version, synchronousCommit, fsync }: ServerFacts, oldestMajor: number): Check[] {
  const major = Math.floor(versionNumber / 10_000)
  const supported = `PostgreSQL ${oldestMajor} to ${newestMajor}`
  const checks = [
    major < oldestMajor
      ? problem('postgres', `PostgreSQL ${version} is too old`, `Upgrade to ${supported}.`)
      : major > newestMajor
        ? warn('postgres', `PostgreSQL ${version} is newer than what was tested`, `Tested are ${supported}.`)
        : ok('postgres', `PostgreSQL ${version}`),
  ]
  if (fsync !== 'on')
    checks.push(problem('durability', 'fsync is off: a power cut loses or breaks the database', 'Set: fsync = on'))
  else checks.push(ok('durability', `fsync on, synchronous_commit ${synchronousCommit}`))
  return checks
}

/** The database's clock decides; this machine's only shows times, and makes `run_at` and `created_after`. */
function skew({ now }: ServerFacts, askedMs: number, answeredMs: number): Check {
  const differenceMs = Math.abs(now.getTime() - (askedMs + answeredMs) / 2)
  const detail = `this machine and the database differ by ${differenceMs < 1000 ? 'less than 1 s' : roughly(differenceMs)}`
  if (differenceMs <= Math.max(skewWarnMs, answeredMs - askedMs)) return ok('clock', detail)
  return warn(
    'clock',
    detail,
    'Run a time service (NTP) on both. The database’s clock decides what is due and what has expired.',
  )
}

/** Whether the database takes writes, which api, worker, janitor and migrate cannot do without. */
async function checkWrites({ db }: Database): Promise<Check> {
  const { StoreProbe, StoreRefusalError } = await import('@askonce/store')
  const name = 'writes'
  const sinceMs = performance.now()
  try {
    await new StoreProbe(db).check()
    return ok(name, `a write of ours was committed in ${Math.ceil(performance.now() - sinceMs)} ms`)
  } catch (error) {
    const need = 'every process of ours has to write: until then nothing is accepted, and no call is made'
    if (error instanceof StoreRefusalError) return problem(name, `${error.message}; ${need}`, error.todo)
    return problem(name, `${reasonOf(error)}; ${need}`, 'Its log says why.')
  }
}

const limitSetBy = { server: 'max_connections', role: 'alter role', database: 'alter database' } as const

/** What one installation needs against what there may be. Behind a pooler the pools are its own affair. */
function connections({ of, name, most, inUse }: ConnectionLimit, config: Config): Check {
  const { poolSize, directUrl } = config.database
  const pools = directUrl === null ? processes * poolSize : 0
  const needed = pools + besidePools + (config.redis.url === null ? bullmqPerLane * config.lanes.length : 0)
  const whose = of === 'server' ? 'the server' : `the ${of} ${name}`
  const detail = `${whose} allows ${most}, ${inUse} in use`
  const todo = `Raise it (${limitSetBy[of]}${of === 'server' ? '' : ' … connection limit'}), or lower ASKONCE_DATABASE_POOL.`
  if (needed > most) return warn('connections', `${detail}: one API, worker and janitor may need ${needed}`, todo)
  if (inUse >= most * nearlyAll) return warn('connections', `${detail}: hardly any are left`, todo)
  return ok('connections', `${detail}; one API, worker and janitor may need ${needed}`)
}

async function checkSchema(url: string, { redis }: Config): Promise<Check[]> {
  const { assertSchema } = await import('@askonce/store')
  const ours = await verdict('schema', 'up to date', () => assertSchema(url))
  if (redis.url !== null || ours.status !== 'ok') return [ours]
  const { assertQueueSchema } = await import('@askonce/queue')
  return [ours, await verdict('queue schema', 'BullMQ’s tables are up to date', () => assertQueueSchema(url))]
}

async function verdict(name: string, fine: string, assert: () => Promise<void>): Promise<Check> {
  try {
    await assert()
    return ok(name, fine)
  } catch (error) {
    return problem(name, reasonOf(error), await schemaTodo(error))
  }
}

async function contentChecks({ db }: Database, config: Config): Promise<Check[]> {
  const { countedOfGroup, countWaiting, readBeats, readLanes, readStatistics } = await import('@askonce/store')
  const before = new Map((await readBeats(db)).beats.map(({ id, beat }) => [id, beat]))
  await sleep(beatWatchMs)
  const alive = (await readBeats(db)).beats.filter(({ id, beat }) => beat !== before.get(id)).length
  const statistics = await readStatistics(db)
  return [
    workers(alive),
    ...(await readLanes(db)).flatMap(lane),
    ...waitingChecks(await countWaiting(db), countedOfGroup),
    backlog(statistics),
    held(statistics, config),
  ]
}

function workers(alive: number): Check {
  if (alive > 0) return ok('workers', `${alive} alive`)
  return problem('workers', 'none is alive: jobs are accepted and wait', 'Start one: npm start, or askonce worker')
}

function lane({ name, model, state, reason, until, remaining_ms: remainingMs }: LaneReading): Check[] {
  // A pause that is over has no end written anywhere.
  if (state === 'open' || (state === 'paused' && remainingMs === 0)) return []
  const at = model === '' ? `lane ${name}` : `lane ${name}, model ${model}`
  if (state === 'stopped') {
    return [
      problem(at, `stopped: ${reason ?? 'no reason given'}`, `Mend the cause, then: askonce lanes resume ${name}`),
    ]
  }
  const detail = `${state}: ${reason ?? 'no reason given'}, opens ${relative(until?.toISOString() ?? null)}`
  return [
    warn(
      at,
      detail,
      'It opens by itself. If it never stays open, ask for less, or for a higher limit at the provider.',
    ),
  ]
}

function backlog({ jobs: { queued, running }, oldestQueuedSeconds }: Statistics): Check {
  const detail = `${queued} queued, ${running} running`
  if (oldestQueuedSeconds < 60) return ok('queue', detail)
  return warn(
    'queue',
    `${detail}; the oldest that is due waits for ${roughly(oldestQueuedSeconds * 1000)}`,
    'More workers, or a higher ASKONCE_CONCURRENCY, if the provider allows it.',
  )
}

function held({ jobs: { uncertain }, oldestUncertainSeconds }: Statistics, { limits }: Config): Check {
  if (uncertain === 0) return ok('uncertain', 'no job waits for a decision')
  const detail = `${count(uncertain, 'job')} held because a call may have been billed, the oldest for ${roughly(oldestUncertainSeconds * 1000)}`
  const days = Math.round(limits.uncertainTtlMs / 86_400_000)
  return warn(
    'uncertain',
    detail,
    `askonce list --uncertain, then askonce retry or askonce fail. After ${days} days they fail.`,
  )
}
