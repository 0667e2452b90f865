import { mkdir } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import type { AddressInfo } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { redisAddress } from '@askonce/address'
import { checkRedis, openConsumer, openWaker, type RedisFacts } from '@askonce/queue'
import { explainCode } from '@askonce/core'
import { innermostCode } from '@askonce/telemetry'
import { leakCheck, startTestRedis, startTestRedisCluster, type TestRedis } from '@askonce/testkit'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { until } from '../fault/system.ts'

const prefix = '{askonce}'
const password = 'hunter2-secret'

const opened: { stop: () => Promise<unknown> }[] = []
const kept = <T extends { stop: () => Promise<unknown> }>(server: T): T => {
  opened.push(server)
  return server
}
const redisWith = async (...settings: string[]): Promise<TestRedis> => kept(await startTestRedis({ settings }))
afterEach(async () => {
  for (const server of opened.splice(0).toReversed()) await server.stop()
})
afterAll(leakCheck)

/** What is said of it, as one text: by doctor's check, and by a process that is asked for its readiness. */
async function said(url: string): Promise<string> {
  const target = redisAddress(url)
  const words = (error: unknown): string => {
    const { message, todo } = error as { message: string; todo?: string | null }
    const code = innermostCode(error)
    const text = [code, code === undefined ? '' : explainCode(code)?.meaning, todo ?? '']
    // Only our own classes may be quoted.
    return [(error as Error).constructor.name.startsWith('Queue') ? message : '', ...text].join(' ')
  }
  const facts: RedisFacts | Error = await checkRedis(target, { prefix, databaseId: 'ours' }).catch(
    (error: unknown) => error as Error,
  )
  const byDoctor =
    facts instanceof Error
      ? words(facts)
      : [
          ...facts.findings.filter(({ grave }) => grave).map(({ todo }) => todo),
          facts.refusal && words(facts.refusal),
        ].join(' ')
  const waker = openWaker(
    { ...target, prefix },
    { onError: () => undefined, databaseId: () => Promise.resolve('ours'), onShared: () => undefined },
  )
  const byPing = await waker.ping().then(() => 'works', words)
  await waker.close()
  expect(`${byDoctor} ${byPing}`).not.toContain(password)
  return `doctor: ${byDoctor.trim()}|\nping: ${byPing.trim()}|`
}

/** Every line of both must match. */
function expectBoth(text: string, pattern: RegExp): void {
  for (const line of text.split('\n')) expect(line).toMatch(pattern)
}

describe('a Redis that says no', () => {
  test('a server that works is said to work', async () => {
    expect(await said((await redisWith()).url)).toBe('doctor: |\nping: works|')
  })

  test('a wrong password, none, and one that is not needed', async () => {
    const redis = await redisWith(`requirepass ${password}`)
    expectBoth(await said(redis.url.replace('//', '//:wrong-hunter2-secret@')), /WRONGPASS/)
    expectBoth(await said(redis.url), /NOAUTH/)
    expect(await said(redis.url.replace('//', `//:${password}@`))).toBe('doctor: |\nping: works|')
    const open = await redisWith()
    expect(await said(open.url.replace('//', `//:${password}@`))).toBe('doctor: |\nping: works|')
  })

  test('a database number that does not exist', async () => {
    expectBoth(await said(`${(await redisWith()).url}/99`), /no database number 99/)
  })

  test('a command that the user may not run, and keys that it may not touch', async () => {
    const redis = await redisWith(
      `user lacks-select on >${password} ~* &* +@all -select`,
      `user lacks-info on >${password} ~* &* +@all -info`,
      `user lacks-some on >${password} ~* &* +@all -xadd -bzpopmin`,
      `user lacks-keys on >${password} ~other:* &* +@all`,
    )
    const as = (user: string, path = ''): string => redis.url.replace('//', `//${user}:${password}@`) + path
    expectBoth(await said(as('lacks-select', '/1')), /run SELECT.*database number 1.*\+select/)
    expectBoth(await said(as('lacks-info')), /run INFO.*\+info/)
    expect(await said(as('lacks-some'))).toMatch(/doctor: .*BZPOPMIN, XADD.*\+bzpopmin \+xadd/)
    expectBoth(await said(as('lacks-keys')), /keys of the queue.*askonce grants --role/)
  })

  test('a command that is renamed', async () => {
    expectBoth(await said((await redisWith('rename-command INFO ""')).url), /cannot be asked for INFO/)
  })

  test('a replica, a full server, one that cannot save, one without its replicas', async () => {
    const replica = await redisWith('replicaof 127.0.0.1 1')
    expectBoth(await said(replica.url), /is a replica/)
    const full = kept(await startTestRedis({ maxmemory: '1' }))
    expectBoth(await said(full.url), /OOM/)
    const unsaved = await redisWith()
    const folder = (await unsaved.command('CONFIG GET dir')).join('').split('\r\n').at(-1) ?? ''
    await mkdir(join(folder, 'dump.rdb'))
    await unsaved.command('CONFIG SET save "3600 1"')
    await unsaved.command('BGSAVE')
    await until(
      () => unsaved.command('INFO persistence'),
      ([info = '']) => info.includes('rdb_last_bgsave_status:err'),
      10_000,
    )
    expectBoth(await said(unsaved.url), /MISCONF/)
    const lonely = await redisWith('min-replicas-to-write 1')
    expectBoth(await said(lonely.url), /NOREPLICAS/)
  })

  test('not a Redis at all, TLS where there is none, and none where there is', async () => {
    const http = createServer((_request, response) => response.end('hello'))
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
    kept({
      stop: () =>
        new Promise((resolve) => {
          http.close(resolve)
          http.closeAllConnections()
        }),
    })
    expectBoth(await said(`redis://127.0.0.1:${(http.address() as AddressInfo).port}`), /not Redis/)
    expect(await said((await redisWith()).url.replace('redis:', 'rediss:'))).toMatch(/doctor: .*asks for TLS/)
    const tls = createTlsServer(() => undefined).on('tlsClientError', () => undefined)
    await new Promise<void>((resolve) => tls.listen(0, '127.0.0.1', resolve))
    kept({ stop: () => new Promise((resolve) => tls.close(resolve)) })
    expectBoth(await said(`redis://127.0.0.1:${(tls.address() as AddressInfo).port}`), /TLS/)
  })

  test('a server that reads its data after a start', async () => {
    const redis = kept(
      await startTestRedis({
        appendonly: true,
        settings: ['enable-debug-command yes', 'key-load-delay 800', 'loading-process-events-interval-bytes 1024'],
      }),
    )
    await redis.command('DEBUG POPULATE 6000 key 100')
    await redis.command('BGREWRITEAOF')
    await until(
      () => redis.command('INFO persistence'),
      ([info = '']) => /aof_rewrite_in_progress:0/.test(info) && /aof_last_bgrewrite_status:ok/.test(info),
      10_000,
    )
    const up = redis.restart()
    await until(
      () => redis.command('INFO persistence').catch(() => ['']),
      ([info = '']) => /loading:1/.test(info),
      10_000,
    )
    expectBoth(await said(redis.url), /reads its data/)
    await up
    expect(await said(redis.url)).toBe('doctor: |\nping: works|')
  })

  test('a consumer does not ask as fast as it can, and goes on once it may', async () => {
    const redis = await redisWith('min-replicas-to-write 1')
    const connection = { ...redisAddress(redis.url), prefix }
    let woken = 0
    const refusals: Error[] = []
    const consumer = openConsumer(connection, {
      lane: 'simulated',
      onWake: () => {
        woken += 1
      },
      onError: (error) => void refusals.push(error),
    })
    const commands = async (): Promise<number> =>
      Number(/total_commands_processed:(\d+)/.exec((await redis.command('INFO stats')).join(''))?.[1])
    await until(
      () => Promise.resolve(refusals.length),
      (count) => count > 0,
      10_000,
    )
    const before = await commands()
    await until(
      () => Promise.resolve(refusals.length),
      (count) => count > 2,
      10_000,
    )
    expect((await commands()) - before).toBeLessThan(100)
    await redis.command('CONFIG SET min-replicas-to-write 0')
    const waker = openWaker(connection, {
      onError: () => undefined,
      databaseId: () => Promise.resolve('ours'),
      onShared: () => undefined,
    })
    waker.wake(['simulated'])
    await until(
      () => Promise.resolve(woken),
      (count) => count > 0,
      10_000,
    )
    await Promise.all([consumer.close(), waker.close()])
  })

  test('a server that becomes a replica while a consumer waits: the first that is said is what keeps it from working', async () => {
    const redis = await redisWith()
    const refusals: Error[] = []
    const consumer = openConsumer(
      { ...redisAddress(redis.url), prefix },
      {
        lane: 'simulated',
        onWake: () => undefined,
        onError: (error) => void refusals.push(error),
      },
    )
    await until(
      () => redis.command('INFO clients'),
      ([info = '']) => /blocked_clients:1/.test(info),
      10_000,
    )
    await redis.command('REPLICAOF 127.0.0.1 1')
    await until(
      () => Promise.resolve(refusals.length),
      (count) => count > 0,
      10_000,
    )
    expect(innermostCode(refusals[0])).toBe('READONLY')
    await consumer.close()
  })

  test('nothing at the address, and a name that nobody knows', async () => {
    expectBoth(await said('redis://127.0.0.1:1'), /ECONNREFUSED/)
    expectBoth(await said('redis://no-such-host.invalid'), /ENOTFOUND|EAI_AGAIN/)
  })

  test('a cluster named as one server, and one server named as a cluster', async () => {
    const cluster = kept(await startTestRedisCluster())
    const [, node] = /@?([\d.]+:\d+)/.exec(cluster.url) ?? []
    expectBoth(await said(`redis://${node}`), /node of a cluster/)
    expectBoth(await said((await redisWith()).url.replace('redis:', 'redis+cluster:')), /single server/)
  })
})
