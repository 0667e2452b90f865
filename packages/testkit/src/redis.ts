import { type RedisNode, startRedisNode } from './redis-node.ts'

export interface TestRedisOptions {
  /** Append-only file, flushed every second, as in production. Without it nothing survives a restart. */
  readonly appendonly?: boolean
  /** For instance `64mb`; with it a full server refuses writes (noeviction). */
  readonly maxmemory?: string
  /** More lines of its configuration file: a replica, a password, a renamed command. */
  readonly settings?: readonly string[]
}

/** A private Redis in any form that the product can use: all of its servers together. */
export interface TestRedisForm {
  /** As REDIS_URL names it. */
  readonly url: string
  /** Every server down unless it is, and up again on the same port; the data comes back only with `appendonly`. */
  restart(): Promise<void>
  /** SIGKILL to every server. */
  kill(): Promise<void>
  /** Freezes every server: connections stay open and nothing answers. */
  pause(): void
  resume(): void
  flushAll(): Promise<void>
  /** One command to every server that takes writes; their replies. */
  command(line: string): Promise<string[]>
  /** Safe to call twice. */
  stop(): Promise<void>
}

/** A private redis-server on a port that it keeps. */
export interface TestRedis extends TestRedisForm {
  readonly port: number
  readonly pid: number
}

/** Settings of a server that holds queues. */
export function serverSettings({ appendonly = false, maxmemory = '0', settings = [] }: TestRedisOptions): string[] {
  const persistence = appendonly ? ['appendonly yes', 'appendfsync everysec'] : ['appendonly no']
  // A replica's first copy begins at once, instead of waiting for more of them.
  return [
    'save ""',
    'repl-diskless-sync-delay 0',
    ...persistence,
    `maxmemory ${maxmemory}`,
    'maxmemory-policy noeviction',
    ...settings,
  ]
}

/** Starts a private Redis, 7.0 or later. It must be stopped by the end of the test file, see leakCheck. */
export async function startTestRedis(options: TestRedisOptions = {}): Promise<TestRedis> {
  const node = await startRedisNode({ settings: serverSettings(options) })
  return {
    ...together([node], () => Promise.resolve([node])),
    url: `redis://127.0.0.1:${node.port}`,
    port: node.port,
    get pid() {
      return node.pid
    },
    stop: node.stop,
  }
}

/** What can be done to several servers at once. `writable`: those that take writes now. */
export function together(
  servers: readonly RedisNode[],
  writable: () => Promise<readonly RedisNode[]>,
): Omit<TestRedisForm, 'url' | 'stop'> {
  const command = async (line: string): Promise<string[]> =>
    Promise.all((await writable()).map((node) => node.command(line)))
  return {
    restart: async () => void (await Promise.all(servers.map((node) => node.restart()))),
    kill: async () => void (await Promise.all(servers.map((node) => node.kill()))),
    pause: () => servers.forEach((node) => node.pause()),
    resume: () => servers.forEach((node) => node.resume()),
    command,
    flushAll: async () => void (await command('FLUSHALL')),
  }
}
