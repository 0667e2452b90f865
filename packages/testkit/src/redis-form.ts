import { startTestRedisCluster } from './redis-cluster.ts'
import { startTestRedisSentinel } from './redis-sentinel.ts'
import { startTestRedis, type TestRedisForm } from './redis.ts'

/** The form of Redis that a run is about: ASKONCE_TEST_REDIS, which is `cluster` or `sentinel`; else one server. */
const redisFormOfRun: 'single' | 'cluster' | 'sentinel' = formOf(process.env['ASKONCE_TEST_REDIS'] ?? 'single')

/** Starts the Redis of this run, for tests that do not care how it is made. */
export function startTestRedisForm(): Promise<TestRedisForm> {
  if (redisFormOfRun === 'cluster') return startTestRedisCluster()
  return redisFormOfRun === 'sentinel' ? startTestRedisSentinel() : startTestRedis()
}

function formOf(given: string): typeof redisFormOfRun {
  if (given === 'single' || given === 'cluster' || given === 'sentinel') return given
  throw new Error(`ASKONCE_TEST_REDIS is ${given}; it can be single, cluster or sentinel`)
}
