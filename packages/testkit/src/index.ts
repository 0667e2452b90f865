export {
  prepareCluster,
  startTestPostgres,
  type DownMode,
  type TestDatabase,
  type TestPostgres,
  type TestPostgresOptions,
} from './postgres.ts'
export { startTestHttpProxy, type TestHttpProxy } from './http-proxy.ts'
export { startTestPgbouncer, type TestPgbouncer } from './pgbouncer.ts'
export { reapAll, spawnNode, type Child, type ChildOptions, type Ended } from './processes.ts'
export { startTcpProxy, type TcpProxy } from './proxy.ts'
export { startTestRedisCluster, type TestRedisCluster, type TestRedisClusterOptions } from './redis-cluster.ts'
export { startTestRedisForm } from './redis-form.ts'
export { startRedisNode, type RedisNode } from './redis-node.ts'
export { startTestRedisSentinel, type TestRedisSentinel } from './redis-sentinel.ts'
export { startTestRedis, type TestRedis, type TestRedisForm, type TestRedisOptions } from './redis.ts'
export { findHttpProxy, findOpenssl, findPgbouncer, findRedis, leakCheck } from './servers.ts'
export { anthropicError, openaiError } from './upstream-answers.ts'
export type { Held, LogLine } from './upstream-record.ts'
export type { Arrival, Behaviour, Match, Script, Step } from './upstream-script.ts'
export { startUpstream, type Upstream, type UpstreamOptions } from './upstream.ts'
export { cpuMsOfTree } from './usage.ts'
