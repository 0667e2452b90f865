import { Redis } from 'ioredis'
import { query } from './query.ts'

const shown = 6

interface Statement {
  query: string
  calls: number
  ms: number
  rows: number
  blocks: number
}

/** Settings of a PostgreSQL that remembers what its statements took. */
export const statementSettings = { shared_preload_libraries: 'pg_stat_statements', 'pg_stat_statements.track': 'top' }

/** Makes the view of statements in the server's own database: not in those that are measured, whose schema is compared. */
export async function watchStatements(url: string): Promise<void> {
  await query(url, 'create extension if not exists pg_stat_statements')
}

/** What the servers did for one database: the statements that took longest, and the commands of Redis since it was last emptied. */
export async function serverCosts(url: string, redisPort: number, database: string): Promise<string> {
  const statements = await query<Statement>(
    url,
    `select s.query, s.calls::float8, s.total_exec_time as ms, s.rows::float8, (s.shared_blks_hit + s.shared_blks_read)::float8 as blocks
     from pg_stat_statements s join pg_database d on d.oid = s.dbid
     where d.datname = $1 and s.calls > 2 and s.query !~* '^(create|alter)' order by s.total_exec_time desc limit $2`,
    [database, shown],
  )
  const lines = statements.map(
    ({ query: text, calls, ms, rows, blocks }) =>
      `  ${text.replaceAll(/\s+/g, ' ').slice(0, 60).padEnd(60)} ${number(ms)} ms in ${number(calls)} calls, ${number(rows)} rows, ${number((ms * 1000) / Math.max(1, rows))} µs and ${(blocks / Math.max(1, rows)).toFixed(1)} pages a row`,
  )
  return ['  statements', ...lines, '  commands of Redis', ...(await commands(redisPort))].join('\n')
}

/** Forgets the commands so far. */
export async function forgetCommands(port: number): Promise<void> {
  const redis = new Redis({ host: '127.0.0.1', port })
  try {
    await redis.config('RESETSTAT')
  } finally {
    redis.disconnect()
  }
}

async function commands(port: number): Promise<string[]> {
  const redis = new Redis({ host: '127.0.0.1', port })
  try {
    const text = await redis.info('commandstats')
    return [...text.matchAll(/^cmdstat_(\S+?):calls=(\d+),usec=(\d+)/gm)]
      .map(([, name = '', calls, us]) => ({ name, calls: Number(calls), us: Number(us) }))
      .toSorted((a, b) => b.us - a.us)
      .slice(0, shown)
      .map(({ name, calls, us }) => `  ${name.padEnd(60)} ${number(us / 1000)} ms in ${number(calls)} calls`)
  } finally {
    redis.disconnect()
  }
}

function number(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: value < 10 ? 1 : 0 })
}
