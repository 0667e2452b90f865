import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '@askonce/embedded'
import { type RedisNode, startRedisNode } from './redis-node.ts'
import { serverSettings, type TestRedisForm, together } from './redis.ts'

export interface TestRedisClusterOptions {
  /** A replica for each of the three primaries, which takes over about two seconds after its primary is gone. */
  readonly replicas?: boolean
}

/** A private Redis Cluster of three primaries. */
export interface TestRedisCluster extends TestRedisForm {
  /** The primary that now has the slot of a key. */
  ownerOf(key: string): Promise<RedisNode>
}

const slots = 16_384
const primaries = 3
const readyMs = 20_000

/** Starts a cluster; takes some seconds. It must be stopped by the end of the test file, see leakCheck. */
export async function startTestRedisCluster({
  replicas = false,
}: TestRedisClusterOptions = {}): Promise<TestRedisCluster> {
  const nodes: RedisNode[] = []
  const stop = async (): Promise<void> => void (await Promise.all(nodes.map((node) => node.stop())))
  try {
    const buses: number[] = []
    for (let index = 0; index < primaries * (replicas ? 2 : 1); index += 1) {
      buses.push(await freePort())
      const cluster = ['cluster-enabled yes', `cluster-port ${buses[index]}`, 'cluster-node-timeout 1000']
      nodes.push(await startRedisNode({ settings: [...serverSettings({}), ...cluster] }))
    }
    const [first, ...others] = nodes as [RedisNode, ...RedisNode[]]
    for (const [index, node] of nodes.slice(0, primaries).entries()) {
      const from = Math.ceil((index * slots) / primaries)
      const to = Math.ceil(((index + 1) * slots) / primaries) - 1
      await node.command(`CLUSTER ADDSLOTSRANGE ${from} ${to}`)
      // Otherwise they would settle that among themselves, which takes time.
      await node.command(`CLUSTER SET-CONFIG-EPOCH ${index + 1}`)
    }
    for (const [index, node] of others.entries()) {
      await first.command(`CLUSTER MEET 127.0.0.1 ${node.port} ${buses[index + 1]}`)
    }
    await untilAll(nodes, 'CLUSTER INFO', new RegExp(`cluster_known_nodes:${nodes.length}\\r`))
    for (const [index, node] of nodes.slice(primaries).entries()) {
      const id = textOf(await (nodes[index] as RedisNode).command('CLUSTER MYID'))
      await untilAll([node], 'CLUSTER NODES', new RegExp(id))
      await node.command(`CLUSTER REPLICATE ${id}`)
    }
    await untilAll(nodes.slice(primaries), 'INFO replication', /master_link_status:up/)
    await untilAll(nodes, 'CLUSTER INFO', /cluster_state:ok/)
  } catch (error) {
    await stop()
    throw error
  }

  const writable = async (): Promise<RedisNode[]> => {
    const answering = nodes.filter(({ answers }) => answers)
    const roles = await Promise.all(answering.map((node) => node.command('INFO replication').catch(() => '')))
    return answering.filter((_, index) => roles[index]?.includes('role:master'))
  }
  return {
    ...together(nodes, writable),
    url: `redis+cluster://${nodes
      .slice(0, primaries)
      .map(({ port }) => `127.0.0.1:${port}`)
      .join(',')}`,
    async ownerOf(key) {
      const first = nodes.find(({ answers }) => answers)
      const slot = Number((await (first as RedisNode).command(`CLUSTER KEYSLOT ${key}`)).replace(/^:/, ''))
      for (const node of await writable()) {
        const [own = ''] = /^.*\bmyself\b.*$/m.exec(await node.command('CLUSTER NODES')) ?? []
        const ranges = [...own.matchAll(/ (\d+)-(\d+)/g)]
        if (ranges.some(([, from, to]) => slot >= Number(from) && slot <= Number(to))) return node
      }
      throw new Error(`no primary has slot ${slot} of ${key}`)
    },
    stop,
  }
}

/** A reply of several bytes comes with its length before it. */
function textOf(reply: string): string {
  return reply.split('\r\n').at(-1) ?? ''
}

async function untilAll(nodes: readonly RedisNode[], line: string, pattern: RegExp): Promise<void> {
  const began = performance.now()
  for (const node of nodes) {
    for (;;) {
      const reply = await node.command(line)
      if (pattern.test(`${reply}\r\n`)) break
      if (performance.now() - began > readyMs) throw new Error(`${line} of Redis on port ${node.port} stays ${reply}`)
      await sleep(50)
    }
  }
}
