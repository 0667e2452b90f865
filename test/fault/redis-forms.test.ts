import { redisAddress } from '@askonce/address'
import { checkRedis } from '@askonce/queue'
import {
  startTestRedisCluster,
  startTestRedisSentinel,
  type RedisNode,
  type TestRedisCluster,
  type TestRedisSentinel,
} from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { call, chat, startSystem, submit, until, type System } from './system.ts'

const jobs = 300
/** From the moment at which Redis takes writes again, somewhere, until the last job has been called; docs/operations.md has what it usually is. */
const recoveryMs = 15_000

/** A running system whose Redis a test breaks, with what it has submitted. */
function load(of: () => { system: System; address: string }) {
  const finished = async (prefix: string): Promise<number> => {
    const rows = await of().system.sql<{ count: string }>(
      `select count(*) from jobs where idempotency_key like $1 and state = 'succeeded'`,
      [`${prefix}-%`],
    )
    return Number(rows[0]?.count)
  }
  return {
    /** Accepts jobs, loses Redis when some of their calls have ended and others are under way, and waits until all have, in time. Which were not called exactly once. */
    async through(
      prefix: string,
      lose: () => Promise<unknown>,
      untilBack: () => Promise<unknown>,
    ): Promise<[string, number][]> {
      const { system, address } = of()
      await system.upstream.script([{ kind: 'answer', delayMs: 200, times: jobs + 1 }])
      const list = Array.from({ length: jobs }, (_, index) => ({
        key: `${prefix}-${index}`,
        ...chat(`${prefix}-${index}`),
      }))
      expect((await call(address, 'POST', '/v1/jobs/bulk', { body: { jobs: list } })).status).toBe(200)
      await until(
        () => finished(prefix),
        (count) => count > 30,
        30_000,
      )
      await lose()
      const accepted = await submit(address, `${prefix}-meanwhile`, chat(`${prefix}-meanwhile`))
      expect(accepted.status).toBe(202)
      await untilBack()
      await until(
        () => finished(prefix),
        (count) => count === jobs + 1,
        recoveryMs,
      )
      const calls = Object.entries(await system.upstream.callsBy()).filter(([marker]) =>
        marker.startsWith(`${prefix}-`),
      )
      expect(calls).toHaveLength(jobs + 1)
      expect(await system.sql(`select 1 from attempts where billing <> 'billed'`)).toEqual([])
      return calls.filter(([, made]) => made !== 1)
    },
  }
}

async function startRoles(system: System): Promise<string> {
  const [{ address }] = await Promise.all([
    system.api(),
    system.started('worker', { ASKONCE_CONCURRENCY: '30' }),
    system.started('janitor'),
  ])
  return address
}

/**
 * The whole system on Redis Cluster and behind Sentinel. DESIGN.md §1.5 again: what a failover forgets goes on from Postgres.
 * Not covered: a cluster over several machines, TLS, and a network that parts old primary and sentinels.
 */
// DESIGN.md §1.5 for Redis of several nodes: whatever a failover loses, every accepted job ends, and none runs twice because of it.
// Not covered: shards that move to other nodes while jobs run, and a network that leaves each worker a primary of its own.
describe('Redis Cluster', () => {
  let system: System
  let redis: TestRedisCluster
  let address: string
  beforeAll(async () => {
    const starting = startTestRedisCluster({ replicas: true })
    system = await startSystem('redis', {}, () => starting)
    redis = await starting
    address = await startRoles(system)
  })
  afterAll(() => system.stop())
  const { through } = load(() => ({ system, address }))
  let lost: RedisNode
  const untilTakenOver = (): Promise<RedisNode> =>
    until(
      () => redis.ownerOf('{askonce}').catch(() => lost),
      ({ port }) => port !== lost.port,
      20_000,
    )

  test('the primary of the queues is killed under load and its replica takes over: every job ends, with one call', async () => {
    lost = await redis.ownerOf('{askonce}')
    expect(await through('failover', () => lost.kill(), untilTakenOver)).toEqual([])
  })

  test('the primary of the queues freezes, which closes no connection: the same, also when it thaws', async () => {
    await lost.restart()
    lost = await redis.ownerOf('{askonce}')
    await until(
      () => lost.command('INFO replication'),
      (info) => info.includes('connected_slaves:1'),
      20_000,
    )
    expect(await through('frozen', () => Promise.resolve(lost.pause()), untilTakenOver)).toEqual([])
    lost.resume()
    expect((await submit(address, 'thawed', chat('thawed'), 30)).body.state).toBe('succeeded')
  })

  test('all nodes are killed and come back empty', async () => {
    const notOnce = await through(
      'restart',
      () => redis.kill(),
      () => redis.restart(),
    )
    expect(notOnce).toEqual([])
  })

  test('doctor looks at every primary', async () => {
    const { summary, findings, refusal } = await checkRedis(redisAddress(redis.url), {
      prefix: '{askonce}',
      databaseId: null,
    })
    expect(summary).toMatch(/^Redis 7.*, cluster of 3 primaries, noeviction, AOF off$/)
    expect(findings).toHaveLength(3)
    expect(refusal).toBeNull()
  })
})

describe('Redis Sentinel', () => {
  let system: System
  let redis: TestRedisSentinel
  let address: string
  beforeAll(async () => {
    const starting = startTestRedisSentinel()
    system = await startSystem('redis', {}, () => starting)
    redis = await starting
    address = await startRoles(system)
  })
  afterAll(() => system.stop())
  const { through } = load(() => ({ system, address }))
  const untilPromoted = (before: RedisNode): Promise<RedisNode> =>
    until(
      () => redis.primary(),
      ({ port }) => port !== before.port,
      20_000,
    )

  // Who is made a replica cuts its connections.
  const replication = (server: RedisNode): Promise<string> => server.command('INFO replication').catch(() => '')

  test('the primary is killed under load and the replica takes over: every job ends, with one call', async () => {
    const before = await redis.primary()
    const notOnce = await through(
      'killed',
      () => before.kill(),
      () => untilPromoted(before),
    )
    expect(notOnce).toEqual([])
    // As its sentinels would do, only later.
    await before.restart()
    await before.command(`REPLICAOF 127.0.0.1 ${(await redis.primary()).port}`)
    await until(
      () => replication(before),
      (info) => info.includes('master_link_status:up'),
      20_000,
    )
  })

  test('the primary freezes, which closes no connection: the same, also when it thaws and takes itself for the primary', async () => {
    const before = await redis.primary()
    const notOnce = await through(
      'frozen',
      () => Promise.resolve(before.pause()),
      () => untilPromoted(before),
    )
    expect(notOnce).toEqual([])
    before.resume()
    expect((await submit(address, 'thawed', chat('thawed'), 30)).body.state).toBe('succeeded')
  })

  test('all sentinels are away while connections are lost: the primary is found again when they are back', async () => {
    const ready = async (): Promise<boolean> => {
      const { checks } = (await (await fetch(`${address}/readyz`)).json()) as { checks: { queue: { ok: boolean } } }
      return checks.queue.ok
    }
    const notOnce = await through(
      'blind',
      async () => {
        const primary = await redis.primary()
        await Promise.all(redis.sentinels.map((sentinel) => sentinel.kill()))
        await primary.command('CLIENT KILL TYPE normal SKIPME yes')
        await until(ready, (ok) => !ok, 10_000)
      },
      () => Promise.all(redis.sentinels.map((sentinel) => sentinel.restart())),
    )
    expect(notOnce).toEqual([])
    const { summary, findings, refusal } = await checkRedis(redisAddress(redis.url), {
      prefix: '{askonce}',
      databaseId: null,
    })
    expect(summary).toMatch(/, by sentinels, noeviction, AOF off$/)
    expect(findings).toContainEqual({ grave: false, todo: expect.stringContaining('AOF is off') as string })
    expect(refusal).toBeNull()
  })
})
