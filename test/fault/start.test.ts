import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { leakCheck, reapAll, spawnNode, startUpstream, type Child, type Upstream } from '@askonce/testkit'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, call, chat, submit, until } from './system.ts'

const askonce = new URL('../../apps/cli/bin/askonce.js', import.meta.url).pathname
const jobs = 1_000

// DESIGN.md §1.1 and §1.3: accepted means durable, never paid twice unasked; on the one-process form that a laptop runs.
// Not covered: a power cut. What a killed process had written is still in the system's cache; that it would be on the disk is Postgres'
// own promise, and that of the disk.
describe('askonce start, killed and started again', () => {
  let directory: string
  let upstream: Upstream

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'askonce-start-'))
    upstream = await startUpstream({ latencyMs: 100 })
  })
  afterAll(async () => {
    await reapAll()
    await upstream.close()
    await killPostgres(directory)
    await rm(directory, { recursive: true, force: true })
    await leakCheck()
  })

  const start = async (): Promise<{ child: Child; address: string }> => {
    const child = spawnNode(askonce, {
      args: ['start'],
      ownGroup: true,
      env: {
        ASKONCE_DATA_DIR: join(directory, 'data'),
        ASKONCE_BOOTSTRAP_KEY: apiKey,
        OPENAI_BASE_URL: upstream.openaiBaseUrl,
        PORT: '0',
      },
    })
    const line = await child.waitForLine(/"event":"api\.started"/, 90_000)
    await child.waitForLine(/"event":"worker\.started"/, 90_000)
    return { child, address: (JSON.parse(line.input) as { address: string }).address }
  }

  test('1,000 jobs, three kill -9 of the whole tree: every job ends, no call is missing in the ledger, none beyond the budget', async () => {
    let { child, address } = await start()
    const list = Array.from({ length: jobs }, (_, index) => ({ key: `job-${index}`, ...chat(`job-${index}`) }))
    const submitAll = () => call(address, 'POST', '/v1/jobs/bulk', { body: { jobs: list } })
    expect((await submitAll()).status).toBe(200)
    for (const share of [0.2, 0.4, 0.6]) {
      await until(
        async () => upstream.callsBy().size,
        (count) => count >= jobs * share,
        60_000,
      )
      await child.kill()
      // Once the database outlives its parent, then it dies as well.
      if (share !== 0.2) await killPostgres(directory)
      ;({ child, address } = await start())
      expect((await submitAll()).status).toBe(200)
    }
    // A third death in a row of the same call may exhaust its budget: such a job is held, and that is an end, too.
    const read = async () =>
      (await call(address, 'POST', '/v1/jobs/bulk', { body: { jobs: list } })).body as unknown as Bulk
    const ended = await until(
      read,
      ({ data }) => data.every(({ job }) => ['succeeded', 'uncertain'].includes(job.state)),
      120_000,
    )
    expect(ended.data).toHaveLength(jobs)

    const rows = await query(
      directory,
      'select idempotency_key as key, count(*)::int as attempts from attempts where billing <> $1 group by 1',
      ['none'],
    )
    const ledger = new Map(rows.map(({ key, attempts }) => [key as string, attempts as number]))
    const missing = [...upstream.callsBy()].filter(([key, calls]) => calls > (ledger.get(key) ?? 0))
    expect(missing).toEqual([])
    expect([...upstream.callsBy()].filter(([, calls]) => calls > 2)).toEqual([])
    expect(ended.data.filter(({ job }) => job.state === 'uncertain').length).toBeLessThan(jobs / 10)

    // Ctrl-C reaches the whole group; the database goes last.
    child.signalGroup('SIGINT')
    expect(await child.exited).toEqual({ code: 0, signal: null })
    await expect(readFile(join(directory, 'data', 'postgres', 'postmaster.pid'))).rejects.toThrow('ENOENT')
  }, 300_000)

  test('a second start on the same data is refused, naming pid and address; answers are still there', async () => {
    const { child, address } = await start()
    const second = spawnNode(askonce, {
      args: ['start'],
      env: { ASKONCE_DATA_DIR: join(directory, 'data'), PORT: '0' },
    })
    expect((await second.exited).code).toBe(1)
    expect(second.stderr.join('\n')).toContain(`pid ${child.pid}`)
    expect(second.stderr.join('\n')).toContain(address)
    const replay = await submit(address, 'job-0', chat('job-0'))
    expect([replay.status, replay.headers.get('idempotent-replayed')]).toEqual([200, 'true'])
    child.signalGroup('SIGINT')
    expect(await child.exited).toEqual({ code: 0, signal: null })
  }, 120_000)

  test('a spool that cannot be written: /readyz stays 200 and says so until it is repaired; answers go to Postgres', async () => {
    const spool = join(directory, 'data', 'spool')
    await rm(spool, { recursive: true, force: true })
    await writeFile(spool, 'in the way')
    const { child, address } = await start()
    await child.waitForLine(/"event":"spool\.unavailable"/, 30_000)
    const ready = async () => {
      const response = await fetch(`${address}/readyz`)
      return { code: response.status, ...((await response.json()) as Ready) }
    }
    const trouble = await until(ready, ({ checks }) => checks.worker.reason?.includes(spool) === true, 10_000)
    expect(trouble).toMatchObject({ code: 200, status: 'degraded', checks: { worker: { ok: false } } })
    const metrics = async () => (await fetch(`${address}/metrics`)).text()
    expect(await metrics()).toContain('\naskonce_spool_writable 0\n')
    expect((await submit(address, 'unneeded', chat('unneeded'), 30)).body.state).toBe('succeeded')
    await rm(spool)
    // The worker looks every half minute.
    const well = await until(ready, ({ status }) => status === 'ready', 45_000)
    expect(well).toMatchObject({ code: 200, checks: { worker: { ok: true, reason: null } } })
    expect(await metrics()).toContain('\naskonce_spool_writable 1\n')
    child.signalGroup('SIGINT')
    expect(await child.exited).toEqual({ code: 0, signal: null })
  }, 120_000)
})

interface Ready {
  status: string
  checks: { worker: { ok: boolean; reason: string | null } }
}

interface Bulk {
  data: { job: { state: string } }[]
}

async function postgresState(directory: string): Promise<{ pid: number; port: number } | null> {
  const text = await readFile(join(directory, 'data', 'postgres', 'postmaster.pid'), 'utf8').catch(() => null)
  if (text === null) return null
  const lines = text.split('\n')
  return { pid: Number(lines[0]), port: Number(lines[3]) }
}

async function killPostgres(directory: string): Promise<void> {
  const state = await postgresState(directory)
  if (state === null) return
  try {
    process.kill(state.pid, 'SIGKILL')
  } catch {
    // It has died already.
  }
}

async function query(directory: string, text: string, values: unknown[]): Promise<Record<string, unknown>[]> {
  const { embeddedUrl } = await import('@askonce/embedded')
  const client = new pg.Client(embeddedUrl(join(directory, 'data')))
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(text, values)).rows
  } finally {
    await client.end()
  }
}
