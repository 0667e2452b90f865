import { readConnection, type Reading } from './readers.ts'
import { Secret } from './secret.ts'

/** A server of a cluster, or a sentinel. */
export type RedisNode = { readonly host: string; readonly port: number }

/** What `REDIS_URL` names: one server, a cluster by some of its nodes, or the primary that the sentinels know under a name. */
export type RedisAddress =
  | { readonly kind: 'redis'; readonly url: string }
  | { readonly kind: 'redis-cluster'; readonly nodes: readonly RedisNode[]; readonly login: RedisLogin }
  | {
      readonly kind: 'redis-sentinel'
      readonly sentinels: readonly RedisNode[]
      readonly primary: string
      readonly db: number
      readonly login: RedisLogin
      readonly sentinelLogin: Omit<RedisLogin, 'tls'>
    }

/** `tls` holds for servers and sentinels. An absent user is the server's default one. */
export type RedisLogin = { readonly tls: boolean; readonly username?: string; readonly password?: string }

const several = /^(rediss?)\+(cluster|sentinel):\/\/(?:([^@/?#]*)@)?([^@/?#]+)(?:\/([^?#]*))?(?:\?([^#]*))?$/i

const expectedCluster =
  'redis+cluster://user:password@host:port,host:port with at least one node, no database number (a cluster has database 0 only) and no query'
const expectedSentinel =
  'redis+sentinel://user:password@host:port,host:port/name or …/name/database with the sentinels and the name that they know the primary by; ?sentinel_username= and sentinel_password= are the only options'
const expectedAny =
  'a redis:// or rediss:// address that parses as a URL (percent-encode special characters of the password), or redis+cluster://host:port,host:port, or redis+sentinel://host:port,host:port/name'

/** `REDIS_URL` as a secret that prints without its passwords. */
export function readRedisUrl(given: string): Reading<Secret> {
  const parsed = parse(given)
  if ('expected' in parsed) return parsed
  if (parsed.value.kind === 'redis') return readConnection(given, ['redis:', 'rediss:'], true)
  const shown = given
    .replace(/(?<=^[^:]+:\/\/[^@/?#:]*:)[^@/?#]*(?=@)/, '[redacted]')
    .replaceAll(/(?<=[?&]sentinel_password=)[^&]*/gi, '[redacted]')
  return { value: new Secret(given, shown) }
}

/** The parts of an address that {@link readRedisUrl} has accepted. */
export function redisAddress(url: string): RedisAddress {
  const parsed = parse(url)
  if ('expected' in parsed) throw new Error(`expected ${parsed.expected}`)
  return parsed.value
}

function parse(given: string): Reading<RedisAddress> {
  if (!/^rediss?\+/i.test(given)) {
    const single = readConnection(given, ['redis:', 'rediss:'], true)
    return 'value' in single ? { value: { kind: 'redis', url: given } } : { expected: expectedAny }
  }
  const match = several.exec(given)
  if (match === null) return { expected: /^rediss?\+sentinel:/i.test(given) ? expectedSentinel : expectedAny }
  const [, scheme = '', form = '', userInfo = '', hosts = '', path = '', query = ''] = match
  const cluster = form.toLowerCase() === 'cluster'
  const nodes = hosts.split(',').map((host) => readNode(host, cluster ? 6379 : 26_379))
  const user = readUserInfo(userInfo)
  const known = nodes.filter((node) => node !== null)
  const login = user === null ? null : { tls: scheme.toLowerCase() === 'rediss', ...user }
  if (cluster) {
    if (login === null || known.length < nodes.length || !['', '0'].includes(path) || query !== '')
      return { expected: expectedCluster }
    return { value: { kind: 'redis-cluster', nodes: known, login } }
  }
  const place = /^([\w.-]+)(?:\/(\d{1,5}))?\/?$/.exec(path)
  const sentinelLogin = readQuery(query)
  if (login === null || known.length < nodes.length || place === null || sentinelLogin === null)
    return { expected: expectedSentinel }
  const [, primary = '', db = '0'] = place
  return { value: { kind: 'redis-sentinel', sentinels: known, primary, db: Number(db), login, sentinelLogin } }
}

/** `host`, `host:port`, `[address]:port`; null: something else. */
function readNode(given: string, defaultPort: number): RedisNode | null {
  const text = `redis://${given}`
  if (given.trim() !== given || !URL.canParse(text)) return null
  const { hostname, port, pathname, search, username } = new URL(text)
  if (hostname === '' || pathname !== '' || search !== '' || username !== '') return null
  return { host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? defaultPort : Number(port) }
}

function readUserInfo(given: string): Omit<RedisLogin, 'tls'> | null {
  const [username = '', ...rest] = given.split(':')
  return loginOf(decoded(username), decoded(rest.join(':')))
}

function readQuery(given: string): Omit<RedisLogin, 'tls'> | null {
  const query = new URLSearchParams(given)
  if ([...query.keys()].some((name) => name !== 'sentinel_username' && name !== 'sentinel_password')) return null
  return loginOf(query.get('sentinel_username') ?? '', query.get('sentinel_password') ?? '')
}

function loginOf(username: string | null, password: string | null): Omit<RedisLogin, 'tls'> | null {
  if (username === null || password === null) return null
  return { ...(username === '' ? {} : { username }), ...(password === '' ? {} : { password }) }
}

function decoded(text: string): string | null {
  try {
    return decodeURIComponent(text)
  } catch {
    return null
  }
}
