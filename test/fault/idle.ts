import { join } from 'node:path'
import { cpuMsOfTree, spawnNode, type Child } from '@askonce/testkit'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'

const askonce = new URL('../../apps/cli/bin/askonce.js', import.meta.url).pathname

export interface Idle {
  /** Of one core, in percent, by all processes: ours and those of the database. */
  cpuPercent: number
  /** Connections that the database holds: the most, seen from the start on. */
  connections: number
  transactionsPerSecond: number
}

/** Runs `askonce start` with its own database and nothing to do, and measures it for so long after its start has settled. */
export async function measureIdle(
  directory: string,
  { settleMs, measureMs }: Record<'settleMs' | 'measureMs', number>,
): Promise<Idle> {
  const data = join(directory, 'data')
  const child: Child = spawnNode(askonce, {
    args: ['start'],
    ownGroup: true,
    env: { ASKONCE_DATA_DIR: data, PORT: '0' },
  })
  await child.waitForLine(/"event":"worker\.started"/, 90_000)
  const client = await connect(join(data, 'postgres'))
  try {
    let connections = 0
    const look = async (): Promise<number> => {
      const { rows } = await client.query<{ count: number; transactions: number }>(`
        select (select count(*)::int from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()) as count,
          (select xact_commit::float8 from pg_stat_database where datname = current_database()) as transactions
      `)
      connections = Math.max(connections, rows[0]?.count ?? 0)
      return rows[0]?.transactions ?? 0
    }
    for (let pastMs = 0; pastMs < settleMs; pastMs += 250) {
      await look()
      await sleep(250)
    }
    const startedAt = performance.now()
    const before = { cpuMs: cpuMsOfTree(child.pid), transactions: await look() }
    await sleep(measureMs)
    const cpuMs = cpuMsOfTree(child.pid) - before.cpuMs
    const tookMs = performance.now() - startedAt
    const transactions = (await look()) - before.transactions
    return { cpuPercent: (100 * cpuMs) / tookMs, connections, transactionsPerSecond: (1_000 * transactions) / tookMs }
  } finally {
    await client.end()
    child.signalGroup('SIGINT')
    await child.exited
  }
}

async function connect(cluster: string): Promise<pg.Client> {
  const [password, pidFile] = await Promise.all([
    readFile(join(cluster, 'askonce.password'), 'utf8'),
    readFile(join(cluster, 'postmaster.pid'), 'utf8'),
  ])
  const client = new pg.Client({
    host: '127.0.0.1',
    port: Number(pidFile.split('\n')[3]),
    user: 'askonce',
    database: 'askonce',
    password: password.trim(),
  })
  await client.connect()
  return client
}
