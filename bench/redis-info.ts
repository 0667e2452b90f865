import { Redis } from 'ioredis'

/** Reads `INFO` of a Redis on this machine once, and gives its numbers by their names. */
export async function redisInfo(port: number): Promise<(name: string) => number> {
  const redis = new Redis({ host: '127.0.0.1', port })
  try {
    const text = await redis.info()
    return (name) => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(text)?.[1])
  } finally {
    redis.disconnect()
  }
}
