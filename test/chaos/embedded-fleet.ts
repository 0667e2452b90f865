import { join } from 'node:path'
import { embeddedUrl, serverProcesses } from '@askonce/embedded'
import {
  finish,
  freePorts,
  makeDirectory,
  producerCount,
  providerEnv,
  query,
  removeDirectory,
  spawnRole,
  startProducers,
  startUpstreamProcess,
  type Fleet,
} from './fleet.ts'
import { untilReady, type FleetOptions } from './server-fleet.ts'
import { Supervised } from './supervised.ts'
import { Teams, writePrices } from './tenants.ts'

/** `askonce start`: everything in one process, with its own Postgres beside it, and no Redis. */
export interface EmbeddedFleet extends Fleet {
  readonly form: 'embedded'
  readonly program: Supervised
  /** Pids of the embedded server, its postmaster first. */
  readonly postgresPids: () => readonly number[]
}

export async function startEmbeddedFleet({ seed, rate, latencyMs, settleMs }: FleetOptions): Promise<EmbeddedFleet> {
  const directory = await makeDirectory()
  const upstream = await startUpstreamProcess(latencyMs)
  const dataDir = join(directory, 'data')
  const [port = 0] = await freePorts(1)
  const env = {
    ...providerEnv(upstream),
    ASKONCE_CONFIG: writePrices(directory),
    PORT: String(port),
    ASKONCE_DATA_DIR: dataDir,
    ASKONCE_DRAIN_SECONDS: '10',
  }
  const program = new Supervised('askonce start', () => spawnRole('start', env))
  const addresses = [`http://127.0.0.1:${port}`]
  await untilReady(addresses)
  const sql: EmbeddedFleet['sql'] = async (text, values) => query(urlOf(dataDir), text, values)
  const teams = new Teams(rate / producerCount)
  await teams.create(sql)
  const { producers, records } = startProducers({ directory, addresses, seed, rate, teams, settleMs })
  const clusterDir = join(dataDir, 'postgres')
  return {
    form: 'embedded',
    directory,
    addresses,
    producers,
    records,
    upstream,
    teams,
    program,
    postgresPids: () => serverProcesses(clusterDir),
    processes: () => [program, ...producers],
    sql,
    finishProducers: () => finish(producers, settleMs),
    async stop() {
      await Promise.all(producers.map((producer) => producer.stop(0)))
      await program.stop(30_000)
      // What a killed program left behind.
      for (const pid of serverProcesses(clusterDir)) process.kill(pid, 'SIGKILL')
      await upstream.child.kill()
      await removeDirectory(directory)
    },
  }
}

function urlOf(dataDir: string): string {
  const url = embeddedUrl(dataDir)
  if (url === undefined) throw new Error('the embedded database is down')
  return url
}
