import { setTimeout as sleep } from 'node:timers/promises'
import { redisAddress } from '@askonce/address'
import {
  migrateQueueSchema,
  openConsumer,
  openWaker,
  type Consumer,
  type QueueConnection,
  type Waker,
} from '@askonce/queue'
import { leakCheck, startTestPostgres, startTestRedis, type TestPostgres, type TestRedis } from '@askonce/testkit'
import {
  createPostgresBackend,
  createRedisBackend,
  Queue,
  Worker,
  type BackendFactory,
  type IQueueBackend,
  type QueueOptions,
} from 'bullmq'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { until } from '../../fault/system.ts'

/** Ids of a lane's wake-ups. */
const ids = 8

const servers = {} as { redis: TestRedis; postgres: TestPostgres; url: string }
beforeAll(async () => {
  servers.redis = await startTestRedis()
  servers.postgres = await startTestPostgres()
  servers.url = (await servers.postgres.createDatabase()).url
  await migrateQueueSchema(servers.url)
})
afterAll(async () => {
  await servers.redis?.stop()
  await servers.postgres?.stop()
  await leakCheck()
})

let lanes = 0
const opened: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of opened.splice(0).toReversed()) await close()
})

/**
 * Promise: what is committed before a wake-up is sent is looked for after it, although wake-ups that wait or are being taken swallow others; and a
 * queue does not grow with the work (DESIGN.md §7). Not covered: a server that is away; workers look by themselves then.
 */
describe.each(['redis', 'postgres'] as const)('wake-ups on %s', (kind) => {
  const connection = (): QueueConnection =>
    kind === 'redis'
      ? { ...redisAddress(servers.redis.url), prefix: '{askonce}' }
      : { kind: 'postgres', url: servers.url }
  const newLane = (): string => `lane-${(lanes += 1)}`

  const waker = (): Waker & { sent: () => number; errors: unknown[] } => {
    let sent = 0
    const errors: unknown[] = []
    const one = openWaker(connection(), {
      onError: () => undefined,
      onSent: (error) => {
        sent += 1
        if (error !== null) errors.push(error)
      },
      databaseId: () => Promise.resolve('ours'),
      onShared: () => undefined,
    })
    opened.push(() => one.close())
    return { ...one, sent: () => sent, errors }
  }
  const consumer = (lane: string, onWake: () => void): Consumer => {
    const one = openConsumer(connection(), { lane, onWake, onError: () => undefined })
    opened.push(() => one.close())
    return one
  }
  /** How BullMQ itself reaches it. */
  const bull = (): { options: QueueOptions; backend: BackendFactory } =>
    kind === 'redis'
      ? {
          options: { connection: { url: servers.redis.url, maxRetriesPerRequest: null }, prefix: '{askonce}' },
          backend: createRedisBackend,
        }
      : {
          options: { connection: { connectionString: servers.url } },
          backend: createPostgresBackend as unknown as BackendFactory,
        }
  /** A BullMQ queue of a lane, to look into. */
  const look = async (lane: string): Promise<Queue<null, void, string, null, void, string, IQueueBackend>> => {
    const { options, backend } = bull()
    const queue = new Queue<null, void, string, null, void, string, IQueueBackend>(`askonce-${lane}`, options, backend)
    queue.on('error', () => undefined)
    await queue.waitUntilReady()
    opened.push(() => queue.close())
    return queue
  }
  const reaches = (read: () => number, count: number): Promise<number> =>
    until(
      () => Promise.resolve(read()),
      (now) => now >= count,
      20_000,
    )

  test('a queue holds eight at most, however many are sent and by however many processes', async () => {
    const lane = newLane()
    const wakers = [waker(), waker(), waker()]
    for (let round = 1; round <= 20; round += 1) {
      for (const one of wakers) one.wake([lane])
      await Promise.all(wakers.map((one) => reaches(one.sent, round)))
    }
    const queue = await look(lane)
    const { waiting, active, delayed, completed, failed, prioritized } = await queue.getJobCounts()
    expect({ waiting, rest: [active, delayed, completed, failed, prioritized].map((count) => count ?? 0) }).toEqual({
      waiting: ids,
      rest: [0, 0, 0, 0, 0],
    })
    let woken = 0
    consumer(lane, () => (woken += 1))
    await reaches(() => woken, ids)
    await until(
      async () => Object.values(await queue.getJobCounts()).reduce((sum, count) => sum + count, 0),
      (left) => left === 0,
      10_000,
    )
  })

  test('what is said of a lane many times at once is two wake-ups: the one under way, and one behind it', async () => {
    const lane = newLane()
    const one = waker()
    for (let times = 0; times < 1_000; times += 1) one.wake([lane])
    await reaches(one.sent, 2)
    await one.close()
    expect([one.sent(), one.errors]).toEqual([2, []])
  })

  test('work that is committed before a wake-up is looked for after it, whatever else is sent and taken at that moment', async () => {
    const lane = newLane()
    const wakers = [waker(), waker()]
    // Committed work by its number; a look sees what is committed when it begins.
    let committed = 0
    let seen = 0
    for (const _ of [1, 2]) consumer(lane, () => (seen = Math.max(seen, committed)))
    for (let round = 0; round < 300; round += 1) {
      committed += 1
      for (const one of wakers) one.wake([lane])
      // Bursts, and moments in which the queue is being emptied.
      if (round % 3 === 0) await sleep(round % 7)
    }
    // No more is sent from here on, and no look is made without a wake-up.
    await reaches(() => seen, committed)
    for (const one of wakers) expect(one.errors).toEqual([])
  })

  test('one that is sent while another is being taken, under the same id, is not lost: the look begins after that', async () => {
    const lane = newLane()
    const queue = await look(lane)
    const add = (): Promise<unknown> =>
      queue.add('wake', null, { jobId: 'wake-0', removeOnComplete: true, removeOnFail: true })
    let committed = 0
    let seen = 0
    consumer(lane, () => (seen = Math.max(seen, committed)))
    for (let round = 0; round < 200; round += 1) {
      committed += 1
      await add()
    }
    await reaches(() => seen, committed)
    expect(seen).toBe(200)
  })

  test('a wake-up that a dead consumer has taken keeps its own id only', async () => {
    const lane = newLane()
    const queue = await look(lane)
    const one = waker()
    // Taken, and never ended: as by a process that was killed then.
    one.wake([lane])
    await reaches(one.sent, 1)
    const { options, backend } = bull()
    const dead = new Worker<null, void, string, IQueueBackend>(
      `askonce-${lane}`,
      null,
      { ...options, autorun: false, lockDuration: 30_000 },
      backend,
    )
    dead.on('error', () => undefined)
    await dead.waitUntilReady()
    const taken = await dead.getNextJob('token-of-the-dead')
    expect(taken?.id).toMatch(/^wake-\d$/)
    opened.push(() => dead.close(true))
    let woken = 0
    consumer(lane, () => (woken += 1))
    for (let round = 1; round <= 2 * ids; round += 1) {
      one.wake([lane])
      await reaches(one.sent, round + 1)
    }
    // Of two turns through the ids, two fell on the one that is taken.
    await reaches(() => woken, ids - 1)
    expect((await queue.getJobCounts('active'))['active']).toBe(1)
    const before = woken
    one.wake([lane])
    one.wake([lane])
    await reaches(() => woken, before + 1)
  })

  test('a consumer that is paused takes none, and those that wait when it goes on', async () => {
    const lane = newLane()
    const one = waker()
    let woken = 0
    const paused = consumer(lane, () => (woken += 1))
    one.wake([lane])
    await reaches(() => woken, 1)
    paused.pause()
    // One that is on its way to it may still come; then none.
    one.wake([lane])
    await reaches(one.sent, 2)
    await sleep(1_000)
    const before = woken
    for (let round = 3; round <= 6; round += 1) {
      one.wake([lane])
      await reaches(one.sent, round)
    }
    const other = newLane()
    let elsewhere = 0
    consumer(other, () => (elsewhere += 1))
    one.wake([other])
    await reaches(() => elsewhere, 1)
    expect(woken).toBe(before)
    paused.resume()
    await reaches(() => woken, before + 1)
  })
})
