/**
 * Commands of BullMQ's scripts: a script may call only what its user may. All of them work on keys that are named, and those are bounded by
 * the prefix. A test compares the list with the scripts of the BullMQ that is installed.
 */
const scriptCommands = [
  ['del', 'exists', 'persist', 'pexpire', 'pexpireat', 'pttl', 'rename', 'type', 'unlink'],
  ['get', 'incr', 'incrby', 'set'],
  ['hdel', 'hexists', 'hget', 'hgetall', 'hincrby', 'hlen', 'hmget', 'hmset', 'hset'],
  ['lindex', 'llen', 'lpop', 'lpos', 'lpush', 'lrange', 'lrem', 'lset', 'ltrim', 'rpop', 'rpoplpush', 'rpush'],
  ['sadd', 'scard', 'sismember', 'smembers', 'srem'],
  ['xadd', 'xdel', 'xlen', 'xrange', 'xread', 'xtrim'],
  [
    'zadd',
    'zcard',
    'zcount',
    'zlexcount',
    'zpopmin',
    'zrange',
    'zrangebylex',
    'zrangebyscore',
    'zrem',
    'zremrangebyrank',
  ],
  ['zremrangebyscore', 'zrevrange', 'zrevrangebyscore', 'zscore'],
  ['time'],
].flat()

/** What is asked of a server besides: what it is, how scripts are sent, how a worker waits. */
const otherCommands = [
  ['info', 'bzpopmin', 'eval', 'evalsha', 'script|exists', 'script|load', 'multi', 'exec'],
  // Of a cluster. Redis knows these names also where it is none.
  ['cluster|info', 'cluster|nodes', 'cluster|shards', 'cluster|slots'],
].flat()

/** How a connection is made and kept. By category: Redis 7.0 refuses a line with CLIENT SETINFO, which newer ones are sent. */
const connecting = '+@connection -@admin -@dangerous'

/** Every command that the user of the processes needs besides connecting, as Redis' ACL names it. */
export const redisCommands: readonly string[] = [...scriptCommands, ...otherCommands]

/**
 * The line of Redis' ACL that makes the user of the processes. `prefix` has its braces. The password is left to the operator: run again after an
 * upgrade, the line leaves it as it is, and a user without one cannot log in.
 */
export function redisAcl({ user, prefix }: { user: string; prefix: string }): string {
  const commands = redisCommands.map((command) => `+${command}`).join(' ')
  return `ACL SETUSER ${word(user)} on resetkeys ~${prefix}:* resetchannels -@all ${connecting} ${commands}`
}

/** As redis-cli reads it. */
function word(text: string): string {
  return /^[\w.-]+$/.test(text) ? text : `"${text.replaceAll(/["\\]/g, '\\$&')}"`
}
