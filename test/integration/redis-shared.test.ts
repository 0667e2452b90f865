import { checkRedis, openDispatcher, type Dispatcher } from '@askonce/queue'
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
  const dispatcher = openDispatcher(
    { ...redisAddress(url), prefix },
    {
      onError: () => undefined,
      databaseId: () => Promise.resolve(databaseId),
      onShared: (reason) => void news.push(reason !== null),
    },
  )
  return { dispatcher, news }
}

const readiness = (dispatcher: Dispatcher): Promise<string> =>
  dispatcher.ping().then(
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
    expect(await readiness(ours.dispatcher)).toBe('ok')
    const theirs = processOf('theirs', redis.url)
    const seen = (shared: boolean): Promise<unknown> =>
      until(
        () => Promise.all([ours, theirs].map(({ dispatcher }) => readiness(dispatcher))),
        (words) => words.every((text) => (text === 'ok') !== shared),
        40_000,
      )
    await seen(true)
    expect(await readiness(ours.dispatcher)).toMatch(/ASKONCE_REDIS_PREFIX.*database number.*within a minute/)
    const doctor = await checkRedis(redisAddress(redis.url), { prefix: '{askonce}', databaseId: 'ours' })
    expect(doctor.findings).toContainEqual({
      grave: true,
      todo: expect.stringContaining('Another system lives there') as string,
    })
    // Jobs still go through.
    await ours.dispatcher.dispatch([{ id: 'a', dispatch: 1, lane: 'simulated', priority: 0 }])
    await redis.flushAll()
    await seen(true)
    await theirs.dispatcher.close()
    await until(
      () => readiness(ours.dispatcher),
      (text) => text === 'ok',
      75_000,
    )
    expect([ours.news, theirs.news]).toEqual([[true, false], [true]])
    await Promise.all([ours.dispatcher.close(), ourOther.dispatcher.close()])
  }, 150_000)

  test('with prefixes or database numbers of their own they do not meet', async () => {
    await redis.flushAll()
    const systems = [
      processOf('one', redis.url, '{one}'),
      processOf('two', redis.url, '{two}'),
      processOf('three', `${redis.url}/3`, '{one}'),
    ]
    for (const { dispatcher } of systems) {
      await dispatcher.dispatch([{ id: 'a', dispatch: 1, lane: 'simulated', priority: 0 }])
      expect(await readiness(dispatcher)).toBe('ok')
    }
    const keys = async (db: number): Promise<string[]> => {
      const [info = ''] = await redis.command(`EVAL "redis.call('SELECT', ${db}) return redis.call('KEYS','*')" 0`)
      return [...new Set([...info.matchAll(/\{\w+\}/g)].map(([name]) => name))].toSorted()
    }
    expect(await keys(0)).toEqual(['{one}', '{two}'])
    expect(await keys(3)).toEqual(['{one}'])
    expect(systems.flatMap(({ news }) => news)).toEqual([])
    await Promise.all(systems.map(({ dispatcher }) => dispatcher.close()))
  })
})

describe('a database number that Redis does not have', () => {
  const attempts = async (url: string): Promise<void> => {
    const { dispatcher } = processOf('ours', url)
    const items = [{ id: 'a', dispatch: 1, lane: 'simulated', priority: 0 }]
    // At the first connection and at those that follow.
    for (let times = 0; times < 4; times += 1) {
      await expect(dispatcher.dispatch(items)).rejects.toThrow('no database number 99')
    }
    expect(await readiness(dispatcher)).toMatch('no database number 99')
    await dispatcher.close()
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
