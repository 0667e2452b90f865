import type { Bench } from './bench.ts'
import type { PeerName, PeerResult, PeerSpec, PeerTask } from './peers/peer.ts'

const program = new URL('peers/main.ts', import.meta.url).pathname

/** How peers are called in tables. */
export const peerTitles: Record<PeerName, string> = {
  'bullmq-redis': 'BullMQ on Redis',
  'bullmq-postgres': 'BullMQ on Postgres',
  'pg-boss': 'pg-boss',
  'graphile-worker': 'graphile-worker',
  dbos: 'DBOS',
}

/** Runs one task of a peer, as a process, to its end. */
export async function runPeer(bench: Bench, peer: PeerName, databaseUrl: string, task: PeerTask): Promise<PeerResult> {
  const spec: PeerSpec = { peer, databaseUrl, redisUrl: bench.redis.url, task }
  const { child, line } = bench.spawn(program, { args: [await bench.file(spec)] })
  const found = await line(/^\{"result"/, 180_000)
  await child.kill()
  return (JSON.parse(found) as { result: PeerResult }).result
}

/** Runs tasks of a peer one after the other on an empty database and says the last one's jobs a second. */
export async function peerRate(bench: Bench, peer: PeerName, ...tasks: PeerTask[]): Promise<number> {
  const database = await bench.cleanDatabase()
  let rate = Number.NaN
  for (const task of tasks) {
    const { count, seconds } = await runPeer(bench, peer, database.url, task)
    rate = count / seconds
  }
  await database.drop()
  return rate
}
