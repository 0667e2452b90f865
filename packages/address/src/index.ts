export type { Parsed } from './grammar.ts'
export { parseRedisUrl, redisAddress, showRedisAddress, type RedisAddress } from './redis-address.ts'
