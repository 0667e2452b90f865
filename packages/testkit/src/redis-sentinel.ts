import { setTimeout as sleep } from 'node:timers/promises'
import { type RedisNode, startRedisNode } from './redis-node.ts'
import { serverSettings, type TestRedisForm, together } from './redis.ts'

/** A private primary with a replica, and three sentinels that watch them. */
export interface TestRedisSentinel extends TestRedisForm {
  /** The server that most sentinels know as the primary. */
  primary(): Promise<RedisNode>
  readonly sentinels: readonly RedisNode[]
}

const primaryName = 'askonce-test'
/** A primary is taken for dead after this long, in milliseconds. */
const downAfterMs = 1_000
const readyMs = 20_000

/** Starts them; takes some seconds. They must be stopped by the end of the test file, see leakCheck. */
export async function startTestRedisSentinel(): Promise<TestRedisSentinel> {
  const servers: RedisNode[] = []
  const sentinels: RedisNode[] = []
  const stop = async (): Promise<void> =>
    void (await Promise.all([...sentinels, ...servers].map((node) => node.stop())))
  try {
    const first = await startRedisNode({ settings: serverSettings({}) })
    servers.push(first)
    const follows = `replicaof 127.0.0.1 ${first.port}`
    servers.push(await startRedisNode({ settings: [...serverSettings({}), follows] }))
    const settings = [
      `sentinel monitor ${primaryName} 127.0.0.1 ${first.port} 2`,
      `sentinel down-after-milliseconds ${primaryName} ${downAfterMs}`,
      // An election that nobody won is held again after twice as long.
      `sentinel failover-timeout ${primaryName} 1000`,
    ]
    for (let count = 0; count < 3; count += 1) sentinels.push(await startRedisNode({ settings, sentinel: true }))
    // They find each other, and the replica, through the primary.
    await untilTrue('sentinels that know each other and the replica', async () => {
      const states = await Promise.all(sentinels.map((node) => node.command('INFO sentinel')))
      return states.every((state) => /status=ok,.*slaves=1,sentinels=3/.test(state))
    })
  } catch (error) {
    await stop()
    throw error
  }

  const primary = async (): Promise<RedisNode> => {
    const replies = await Promise.all(
      sentinels.map((node) => node.command(`SENTINEL GET-MASTER-ADDR-BY-NAME ${primaryName}`).catch(() => '')),
    )
    const count = ({ port }: RedisNode): number => replies.filter((reply) => reply.endsWith(`\r\n${port}`)).length
    return servers.toSorted((a, b) => count(b) - count(a))[0] as RedisNode
  }
  const addresses = sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')
  return {
    ...together(servers, async () => [await primary()]),
    url: `redis+sentinel://${addresses}/${primaryName}/0`,
    primary,
    sentinels,
    stop,
  }
}

async function untilTrue(what: string, holds: () => Promise<boolean>): Promise<void> {
  const began = performance.now()
  while (!(await holds())) {
    if (performance.now() - began > readyMs) throw new Error(`no ${what} within ${readyMs} ms`)
    await sleep(50)
  }
}
