import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { freePort } from '@askonce/embedded'
import { startTestRedis, type TestRedis } from '@askonce/testkit'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, startSystem, type System } from '../../fault/system.ts'

const askonce = new URL('../../../apps/cli/bin/askonce.js', import.meta.url).pathname
const roles = ['api', 'worker', 'janitor', 'start'] as const
/** Of the workers here. */
const drainMs = 1_000

// A process that its supervisor stops has to end, whatever its servers do: a supervisor kills it in the end, and with it what a drain keeps.
describe('a server that is stopped while one of its servers is in trouble', () => {
  let system: System
  let redis: TestRedis | null = null
  beforeAll(async () => {
    system = await startSystem('embedded')
  })
  afterEach(async () => {
    redis?.resume()
    await redis?.stop()
    redis = null
    system.postgres.resume()
  })
  afterAll(() => system.stop())

  /** Starts a role on a Redis with these settings, and waits until it has met it. */
  const startedOn = async (role: (typeof roles)[number], settings: string[]) => {
    redis = await startTestRedis({ settings })
    const env = { REDIS_URL: redis.url, ASKONCE_DRAIN_SECONDS: String(drainMs / 1000) }
    const child = system.spawn(role, env)
    await child.waitForLine(role === 'start' ? /Askonce is running/ : new RegExp(`"event":"${role}\\.started"`), 60_000)
    if (role === 'worker' || role === 'start') {
      if (settings.length > 0) await child.waitForLine(/"event":"queue\.unavailable"/, 30_000)
    }
    return child
  }
  const stopped = async (child: ReturnType<System['spawn']>): Promise<number> => {
    const sinceMs = performance.now()
    child.signal('SIGTERM')
    expect(await child.exited).toMatchObject({ code: 0, signal: null })
    return performance.now() - sinceMs
  }

  describe.each([
    ['is a replica', ['replicaof 127.0.0.1 1']],
    ['refuses writes without its replicas', ['min-replicas-to-write 1']],
    ['does not know INFO', ['rename-command INFO ""']],
  ])('Redis %s', (_what, settings) => {
    test.each(['worker', 'start'] as const)('%s ends within its drain and 6 s', async (role) => {
      const child = await startedOn(role, settings)
      expect(await stopped(child)).toBeLessThan(drainMs + 6_000)
      // Refused again and again: it must not ask as fast as it can.
      expect(child.stdout.filter((line) => line.includes('queue.unavailable')).length).toBeLessThan(5)
    })
  })

  test.each(roles)('Redis hangs: %s ends within its drain and 10 s', async (role) => {
    const child = await startedOn(role, [])
    redis?.pause()
    expect(await stopped(child)).toBeLessThan(drainMs + 10_000)
  })

  test.each(roles)('Postgres hangs: %s ends within its drain and 15 s', async (role) => {
    const child = await startedOn(role, [])
    system.postgres.pause()
    expect(await stopped(child)).toBeLessThan(drainMs + 15_000)
  })

  test('Postgres hangs while migrate waits for another migrator: it ends within 17 s', async () => {
    await system.sql('create database unmigrated')
    const url = new URL(system.database.url)
    url.pathname = 'unmigrated'
    const other = new pg.Client({ connectionString: url.href })
    await other.connect()
    try {
      await other.query('select pg_advisory_lock($1)', [0x61_73_6b_31])
      const child = system.spawn('migrate', { DATABASE_URL: url.href })
      const waiting = `select pid from pg_stat_activity where application_name = 'askonce migrate' and wait_event_type = 'Lock'`
      await expect.poll(() => system.sql(waiting), { timeout: 30_000 }).toHaveLength(1)
      system.postgres.pause()
      const sinceMs = performance.now()
      child.signal('SIGTERM')
      expect((await child.exited).signal).toBeNull()
      expect(performance.now() - sinceMs).toBeLessThan(17_000)
    } finally {
      system.postgres.resume()
      await other.end()
    }
  })
})

describe('a server whose log nobody reads', () => {
  let system: System
  beforeAll(async () => {
    system = await startSystem('embedded')
  })
  afterAll(() => system.stop())

  test.each(['stdout', 'stderr'] as const)(
    'goes on serving with %s full, and ends',
    async (hanging) => {
      const port = await freePort()
      const child = spawn(process.execPath, [askonce, 'start'], {
        env: {
          PATH: process.env['PATH'],
          DATABASE_URL: system.database.url,
          ASKONCE_BOOTSTRAP_KEY: apiKey,
          ASKONCE_DATA_DIR: `${system.directory}/${hanging}`,
          PORT: String(port),
          LOG_LEVEL: 'debug',
        },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      const ended = once(child, 'exit')
      let heard = ''
      const other = hanging === 'stdout' ? child.stderr : child.stdout
      other.on('data', (bytes: Buffer) => (heard += bytes.toString()))
      const ask = (path: string): Promise<number> =>
        fetch(`http://127.0.0.1:${port}${path}`, { signal: AbortSignal.timeout(10_000) }).then(async (response) => {
          await response.arrayBuffer()
          return response.status
        })
      try {
        for (;;) {
          if ((await ask('/healthz').catch(() => 0)) === 200) break
          await new Promise((resolve) => setTimeout(resolve, 100))
        }
        // Some 200 bytes each: the buffers of both ends of the pipe hold 64 KiB each.
        for (let times = 0; times < 20; times += 1) {
          const statuses = await Promise.all(Array.from({ length: 100 }, () => ask('/v1/jobs')))
          expect(statuses.every((status) => status === 401)).toBe(true)
        }
        expect(await ask('/readyz')).toBe(200)
      } finally {
        child.kill('SIGTERM')
      }
      const late = setTimeout(() => child.kill('SIGKILL'), 20_000)
      const [code, signal] = (await ended) as [number | null, string | null]
      clearTimeout(late)
      expect({ code, signal }).toEqual({ code: 0, signal: null })
      expect(heard.includes('Stopped.')).toBe(hanging === 'stderr')
    },
    120_000,
  )
})
