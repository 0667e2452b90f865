import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { newApiKey, startApi } from '@askonce/api'
import { configTable, Secret, type Config } from '@askonce/config'
import { apiDrainMs } from '@askonce/core'
import { acquireOwner, EmbeddedPostgresError, startEmbedded, type Owner } from '@askonce/embedded'
import { startJanitor } from '@askonce/janitor'
import { createMetrics } from '@askonce/telemetry'
import { startWorker, type Worker } from '@askonce/worker'
import { unreadNotice } from '../database.ts'
import { refusal } from '../errors.ts'
import { banner, revokedKeyNotice } from './banner.ts'
import { databaseUrlOf, poolerUrlOf, queueOf, readConfig } from './environment.ts'
import { openLog } from './log.ts'
import { refuseToLose } from './lost.ts'
import { warnOfOpenFiles } from './open-files.ts'
import { migrateAll, requirePooler, requireSchema } from './schema.ts'
import { catchSignals, openLastResort, untilAborted } from './signals.ts'

interface Base {
  databaseUrl: string
  owner: Owner
  /** Shown in the banner. */
  place: string
  stop: () => Promise<void>
}

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** Everything in one process: database (unless DATABASE_URL names one), API, worker and janitor. */
export async function runStart(): Promise<void> {
  const config = readConfig()
  // People read a terminal, machines read lines: on a terminal only what needs attention is logged, unless asked otherwise.
  const asked = configTable().some(({ variable, from }) => variable === 'LOG_LEVEL' && from !== 'default')
  const level = process.stdout.isTTY && !asked ? 'warn' : config.log.level
  const log = openLog(level, 'start')
  const signals = catchSignals()
  warnOfOpenFiles('start', config, log)
  const lastResort = openLastResort(signals, Math.max(apiDrainMs, config.worker.drainMs), log)
  const base = await openBase(config)
  let lost: string[] = []
  try {
    const queue = queueOf(config, base.databaseUrl)
    await migrateAll(base.databaseUrl, queue.kind === 'postgres', log, signals.first)
    await requireSchema(base.databaseUrl, queue.kind === 'postgres', log, signals.first)
    const poolerUrl = poolerUrlOf(config)
    if (poolerUrl !== null) await requirePooler(poolerUrl, base.databaseUrl, log, signals.first)
    const key = config.bootstrapKey?.reveal() ?? (await keptKey(config.dataDir))
    const metrics = createMetrics()
    const context = {
      config: {
        ...config,
        bootstrapKey: new Secret(key),
        database: { ...config.database, poolSize: roleShare(config) },
      },
      databaseUrl: base.databaseUrl,
      poolerUrl,
      queue,
      log,
      metrics,
    }
    let worker: Worker | null = null
    const api = await startApi({ ...context, workerProblems: async () => (await worker?.problems()) ?? [] })
    worker = await startWorker(context)
    const janitor = await startJanitor(context)
    base.owner.update({ address: api.address, apiKey: key })
    say(banner({ config, address: api.address, key, place: base.place }))
    if (unreadNotice(config) !== '') say(`Note:${unreadNotice(config)}\n`)
    if (api.bootstrapKeyIsRevoked()) say(revokedKeyNotice(config))

    await untilAborted(signals.first)
    const calls = worker.inFlight()
    say(calls === 0 ? '\nStopping.' : `\nDraining ${calls} running calls; Ctrl-C again stops now (they may be billed).`)
    void untilAborted(signals.second).then(() => worker.hurry())
    await Promise.all([lastResort.during('the API', api.close()), lastResort.during('the worker', worker.stop())])
    await lastResort.during('the janitor', janitor.stop())
    lost = worker.lost()
  } finally {
    // Should this be cut short, the next start takes the database over as it does after a kill.
    await lastResort.during('the database', base.stop())
  }
  refuseToLose(lost)
  say('Stopped. `npm start` goes on where this ended.')
}

/** The API, the worker and the janitor are one process here, and ASKONCE_DATABASE_POOL is of a process. */
function roleShare({ database: { poolSize } }: Config): number {
  return Math.max(2, Math.floor(poolSize / 3))
}

async function openBase(config: Config): Promise<Base> {
  const { dataDir } = config
  try {
    if (config.database.url !== null) {
      await mkdir(dataDir, { recursive: true, mode: 0o700 })
      const owner = await acquireOwner({ dataDir })
      return {
        databaseUrl: databaseUrlOf(config),
        owner,
        place: String(config.database.url),
        stop: () => owner.release(),
      }
    }
    const embedded = await startEmbedded({ dataDir, onProgress: say, log: say })
    const place = `${dataDir} (embedded PostgreSQL${embedded.tookOver ? ', taken over from a process that died' : ''})`
    return { databaseUrl: embedded.url, owner: embedded.owner, place, stop: () => embedded.stop() }
  } catch (error) {
    if (error instanceof EmbeddedPostgresError) throw refusal(error.message)
    throw refusal(`${dataDir}: ${(error as Error).message}`)
  }
}

/** The key that a laptop uses: made once, kept in the data directory. */
async function keptKey(dataDir: string): Promise<string> {
  const path = join(dataDir, 'api-key')
  const kept = await readFile(path, 'utf8').catch(() => '')
  if (kept.trim() !== '') return kept.trim()
  const { key } = newApiKey()
  await writeFile(path, `${key}\n`, { mode: 0o600 })
  await chmod(path, 0o600)
  return key
}
