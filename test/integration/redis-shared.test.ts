import { checkRedis, openWaker, type Waker } from '@askonce/queue'
import { redisAddress } from '@askonce/address'
import {
  leakCheck,
  startTestRedis,
  startTestRedisSentinel,
  type TestRedis,
  type TestRedisSentinel,
} from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { until } from '../fault/system.ts'

/** A process of the system of a database. */
function processOf(databaseId: string, url: string, prefix = '{askonce}') {
  const news: boolean[] = []
  const sent: unknown[] = []
  const waker = openWaker(
    { ...redisAddress(url), prefix },
    {
      onError: () => undefined,
      onSent: (error) => void sent.push(error),
      databaseId: () => Promise.resolve(databaseId),
      onShared: (reason) => void news.push(reason !== null),
    },
  )
  /** Wakes a lane's workers; what kept the wake-up from its way, if anything. */
  const wake = async (): Promise<unknown> => {
    const before = sent.length
    waker.wake(['simulated'])
    await until(
      () => Promise.resolve(sent.length),
      (count) => count > before,
      10_000,
    )
    return sent.at(-1)
  }
  return { waker, news, wake }
}

const readiness = (waker: Waker): Promise<string> =>
  waker.ping().then(
    () => 'ok',
    (error: unknown) => (error as Error).message,
  )

describe('systems that share a Redis', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startTestRedis()
  })
  afterAll(() => redis.stop())

  test('two on one prefix notice each other, also after FLUSHALL, and say so once; it ends when one is gone', async () => {
    const ours = processOf('ours', redis.url)
    const ourOther = processOf('ours', redis.url)
    expect(await readiness(ours.waker)).toBe('ok')
    const theirs = processOf('theirs', redis.url)
    const seen = (shared: boolean): Promise<unknown> =>
      until(
        () => Promise.all([ours, theirs].map(({ waker }) => readiness(waker))),
        (words) => words.every((text) => (text === 'ok') !== shared),
        40_000,
      )
    await seen(true)
    expect(await readiness(ours.waker)).toMatch(/ASKONCE_REDIS_PREFIX.*database number.*within a minute/)
    const doctor = await checkRedis(redisAddress(redis.url), { prefix: '{askonce}', databaseId: 'ours' })
    expect(doctor.findings).toContainEqual({
      grave: true,
      todo: expect.stringContaining('Another system lives there') as string,
    })
    // Wake-ups still go through.
    expect(await ours.wake()).toBeNull()
    await redis.flushAll()
    await seen(true)
    await theirs.waker.close()
    await until(
      () => readiness(ours.waker),
      (text) => text === 'ok',
      75_000,
    )
    expect([ours.news, theirs.news]).toEqual([[true, false], [true]])
    await Promise.all([ours.waker.close(), ourOther.waker.close()])
  }, 150_000)

  test('with prefixes or database numbers of their own they do not meet', async () => {
    await redis.flushAll()
    const systems = [
      processOf('one', redis.url, '{one}'),
      processOf('two', redis.url, '{two}'),
      processOf('three', `${redis.url}/3`, '{one}'),
    ]
    for (const { waker, wake } of systems) {
      expect(await wake()).toBeNull()
      expect(await readiness(waker)).toBe('ok')
    }
    const keys = async (db: number): Promise<string[]> => {
      const [info = ''] = await redis.command(`EVAL "redis.call('SELECT', ${db}) return redis.call('KEYS','*')" 0`)
      return [...new Set([...info.matchAll(/\{\w+\}/g)].map(([name]) => name))].toSorted()
    }
    expect(await keys(0)).toEqual(['{one}', '{two}'])
    expect(await keys(3)).toEqual(['{one}'])
    expect(systems.flatMap(({ news }) => news)).toEqual([])
    await Promise.all(systems.map(({ waker }) => waker.close()))
  })
})

describe('a database number that Redis does not have', () => {
  const attempts = async (url: string): Promise<void> => {
    const { waker, wake } = processOf('ours', url)
    // At the first connection and at those that follow.
    for (let times = 0; times < 4; times += 1) {
      expect(await wake()).toMatchObject({ message: expect.stringContaining('no database number 99') as string })
    }
    expect(await readiness(waker)).toMatch('no database number 99')
    await waker.close()
  }
  /** Commands that a server has run, besides those of a connection's beginning, and of this question. */
  const stats = async (redis: TestRedis | TestRedisSentinel): Promise<string[]> => {
    const [text = ''] = await redis.command('INFO commandstats')
    return [...text.matchAll(/cmdstat_([a-z|]+):/g)].map(([, name = '']) => name)
  }
  const beginning =
    /^(?:select|info|client\|.*|auth|quit|ping|publish|replconf|psync|subscribe|hello|role|config\|.*|slaveof|multi|exec|command.*)$/

  test('one server: nothing is sent to another one, at the first connection and later', async () => {
    const redis = await startTestRedis()
    try {
      await attempts(`${redis.url}/99`)
      expect((await stats(redis)).filter((name) => !beginning.test(name))).toEqual([])
      expect(await redis.command('DBSIZE')).toEqual([':0'])
    } finally {
      await redis.stop()
    }
  })

  test('sentinels: the same', async () => {
    const redis = await startTestRedisSentinel()
    try {
      await attempts(redis.url.replace(/\/\d+$/, '').concat('/99'))
      expect((await stats(redis)).filter((name) => !beginning.test(name))).toEqual([])
    } finally {
      await redis.stop()
    }
  })
})

afterAll(leakCheck)
