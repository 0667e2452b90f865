import {
  cut,
  encodingRule,
  readPlace,
  readQuery,
  showLogin,
  showPlace,
  type AddressParts,
  type Parsed,
  type Place,
} from './grammar.ts'
import type { TlsFiles } from './tls-files.ts'

/** What `REDIS_URL` names: one server, a cluster by some of its nodes, or the primary that the sentinels know under a name. */
export type RedisAddress =
  | {
      readonly kind: 'redis'
      readonly server: Place
      readonly db: number
      /** Of IP addresses: 4, 6, or 0 for either. */
      readonly family: number
      readonly login: RedisLogin
    }
  | { readonly kind: 'redis-cluster'; readonly nodes: readonly Place[]; readonly login: RedisLogin }
  | {
      readonly kind: 'redis-sentinel'
      readonly sentinels: readonly Place[]
      readonly primary: string
      readonly db: number
      readonly login: RedisLogin
      readonly sentinelLogin: Omit<RedisLogin, 'tls'>
    }

/** `tls` holds for servers and sentinels; its files are not part of the address. An absent user is the server's default one. */
export type RedisLogin = {
  readonly tls: boolean
  readonly files?: TlsFiles
  readonly username?: string
  readonly password?: string
}

const port = 6379
const sentinelPort = 26_379

const expectedAny = `redis://user:password@host:port/database, rediss:// for TLS, or redis+cluster://host:port,host:port, or redis+sentinel://host:port,host:port/name; ${encodingRule}`
const expectedOne =
  'redis://user:password@host:port/database with a database number and at most ?family=0, 4 or 6 as its query: other options are not read from the address'
const expectedCluster =
  'redis+cluster://user:password@host:port,host:port with at least one node, no database number (a cluster has database 0 only) and no query'
const expectedSentinel =
  'redis+sentinel://user:password@host:port,host:port/name or …/name/database with the sentinels and the name that they know the primary by; ?sentinel_username= and sentinel_password= are the only options'
const expectedLogin =
  'a password after the user: redis://user:password@host, or redis://:password@host for the default user'

/** Parses `REDIS_URL`. */
export function parseRedisUrl(given: string): Parsed<RedisAddress> {
  const parts = cut(given)
  const [, tls, form] = /^redis(s?)(?:\+(cluster|sentinel))?$/.exec(parts?.scheme ?? '') ?? []
  if (parts === null || tls === undefined) return { expected: expectedAny }
  if (parts.user !== '' && parts.password === '') return { expected: expectedLogin }
  const login = { tls: tls === 's', ...loginOf(parts.user, parts.password) }
  if (form === 'cluster') return parseCluster(parts, login)
  return form === 'sentinel' ? parseSentinel(parts, login) : parseOne(parts, login)
}

function parseOne({ hosts, path, query }: AddressParts, login: RedisLogin): Parsed<RedisAddress> {
  if (hosts.includes(',')) return { expected: expectedAny }
  const server = readPlace(hosts, port)
  const parameters = readQuery(query)
  if (server === null || parameters === null || !/^\d{0,5}$/.test(path)) return { expected: expectedOne }
  const { family = '0', ...others } = Object.fromEntries(parameters)
  if (Object.keys(others).length > 0 || !/^[046]$/.test(family)) return { expected: expectedOne }
  return { value: { kind: 'redis', server, db: Number(path), family: Number(family), login } }
}

function parseCluster({ hosts, path, query }: AddressParts, login: RedisLogin): Parsed<RedisAddress> {
  const nodes = readPlaces(hosts, port)
  if (nodes === null || !['', '0'].includes(path) || query !== '') return { expected: expectedCluster }
  return { value: { kind: 'redis-cluster', nodes, login } }
}

function parseSentinel({ hosts, path, query }: AddressParts, login: RedisLogin): Parsed<RedisAddress> {
  const sentinels = readPlaces(hosts, sentinelPort)
  const [, primary, db = '0'] = /^([\w.-]+)(?:\/(\d{1,5}))?\/?$/.exec(path) ?? []
  const parameters = readQuery(query)
  if (sentinels === null || primary === undefined || parameters === null) return { expected: expectedSentinel }
  const { sentinel_username: user = '', sentinel_password: password = '', ...others } = Object.fromEntries(parameters)
  if (Object.keys(others).length > 0) return { expected: expectedSentinel }
  const sentinelLogin = loginOf(user, password)
  return { value: { kind: 'redis-sentinel', sentinels, primary, db: Number(db), login, sentinelLogin } }
}

function readPlaces(hosts: string, defaultPort: number): Place[] | null {
  const places = hosts.split(',').map((host) => readPlace(host, defaultPort))
  const known = places.filter((place) => place !== null)
  return known.length < places.length ? null : known
}

function loginOf(username: string, password: string): Omit<RedisLogin, 'tls'> {
  return { ...(username === '' ? {} : { username }), ...(password === '' ? {} : { password }) }
}

/** The address without its passwords, for people. */
export function showRedisAddress(address: RedisAddress): string {
  const { tls, username = '', password = '' } = address.login
  const start = `${tls ? 'rediss' : 'redis'}${address.kind.slice('redis'.length).replace('-', '+')}://${showLogin(username, password)}`
  switch (address.kind) {
    case 'redis': {
      const family = address.family === 0 ? '' : `?family=${address.family}`
      return `${start}${showPlace(address.server)}/${address.db}${family}`
    }
    case 'redis-cluster':
      return `${start}${address.nodes.map(showPlace).join(',')}`
    case 'redis-sentinel': {
      const { sentinels, primary, db, sentinelLogin } = address
      const query = [
        ...(sentinelLogin.username === undefined
          ? []
          : [`sentinel_username=${encodeURIComponent(sentinelLogin.username)}`]),
        ...(sentinelLogin.password === undefined ? [] : ['sentinel_password=[redacted]']),
      ]
      return `${start}${sentinels.map(showPlace).join(',')}/${primary}/${db}${query.length === 0 ? '' : `?${query.join('&')}`}`
    }
  }
}

/** The parts of an address that {@link parseRedisUrl} accepts, with the files of its TLS. Throws what was expected of another. */
export function redisAddress(url: string, files?: TlsFiles): RedisAddress {
  const parsed = parseRedisUrl(url)
  if ('expected' in parsed) throw new Error(`REDIS_URL is not as needed: expected ${parsed.expected}`)
  const { value } = parsed
  return value.login.tls && files !== undefined ? { ...value, login: { ...value.login, files } } : value
}
