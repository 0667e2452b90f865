import { isIP } from 'node:net'
import { cut, decode, encodingRule, readPort, readQuery, showLogin, showPlace, type Parsed } from './grammar.ts'
import { knownParameters, refusedParameters } from './postgres-parameters.ts'
import { parsePostgresTls, type PostgresTls } from './postgres-tls.ts'
import { formatOptions, parseOptions } from './session-settings.ts'

/** What `DATABASE_URL` says, by libpq's meaning. */
export interface PostgresAddress {
  /** Name or IP address, or the absolute path of the directory that holds the server's socket. */
  readonly host: string
  readonly port: number
  /** null: that of the operating system. */
  readonly user: string | null
  /** null: what `~/.pgpass` knows. */
  readonly password: string | null
  /** null: named as the user. */
  readonly database: string | null
  /** null: not encrypted. */
  readonly tls: PostgresTls | null
  /** Settings of the session that the address brings along. */
  readonly settings: ReadonlyMap<string, string>
}

const expectedForm = `postgres://user:password@host:port/database without quotes, psql or jdbc: before it, and after it ?name=value&name=value with each name once; ${encodingRule}, and in a value + and & too`
const expectedHost =
  'a host: a name, an IP address (IPv6 in brackets), or the directory of a socket as ?host=/run/postgresql, with a port from 1 to 65535'
const severalHosts =
  'one host: give the address that leads to the primary (the writer endpoint of the provider, or a proxy in front of the servers), with one port'
const target = 'target_session_attrs=read-write or any, or without it: Askonce works on the primary'
const listed = 'docs/operations.md lists what an address may say'

/** Parses `DATABASE_URL`. */
export function parsePostgresUrl(given: string): Parsed<PostgresAddress> {
  const parts = cut(given)
  const parameters = readQuery(parts?.query ?? '')
  if (parts === null || parameters === null || !/^postgres(?:ql)?$/.test(parts.scheme))
    return { expected: expectedForm }
  const problem = nameProblem(parameters) ?? valueProblem(parameters)
  if (problem !== null) return { expected: problem }

  const place = readHost(parts.hosts, parameters)
  if ('expected' in place) return place
  const path = parts.path.includes('/') ? null : decode(parts.path)
  const user = onlyOne(parts.user, parameters.get('user'))
  const password = onlyOne(parts.password, parameters.get('password'))
  const database = path === null ? undefined : onlyOne(path, parameters.get('dbname'))
  if (user === undefined || password === undefined || database === undefined) return { expected: expectedForm }
  const tls = parsePostgresTls(parameters, place.value.host)
  if ('expected' in tls) return tls
  const settings = parseOptions(parameters.get('options') ?? '')
  if ('expected' in settings) return settings
  return { value: { ...place.value, user, password, database, tls: tls.value, settings: settings.value } }
}

/** A name that is not read. Where the query holds a password, a name may be a piece of it, and is not repeated. */
function nameProblem(parameters: ReadonlyMap<string, string>): string | null {
  const name = [...parameters.keys()].find((each) => !knownParameters.has(each))
  if (name === undefined) return null
  if (parameters.has('password') || parameters.has('sslpassword') || name.length > 40) {
    return `an address without unknown parameters: ${listed}, and & in a value is to be percent-encoded`
  }
  const reason = refusedParameters.get(name)
  return reason === undefined
    ? `an address without ${name}, which is not known here: ${listed}`
    : `an address without ${name}: ${reason}. Delete that parameter`
}

/** Parameters that leave no choice. */
function valueProblem(parameters: ReadonlyMap<string, string>): string | null {
  if (!/^(?:any|read-write|primary)$/.test(parameters.get('target_session_attrs') ?? 'any')) return target
  if (!/^(?:disable|prefer)$/.test(parameters.get('gssencmode') ?? 'disable'))
    return 'gssencmode=disable, or without it: connections are encrypted by TLS'
  if ((parameters.get('uselibpqcompat') ?? 'true') !== 'true')
    return 'an address without uselibpqcompat: sslmode always means what it means to libpq'
  return null
}

function readHost(hosts: string, parameters: ReadonlyMap<string, string>): Parsed<{ host: string; port: number }> {
  const givenHost = parameters.get('host')
  const givenPort = parameters.get('port')
  if ([hosts, givenHost, givenPort].some((text) => text?.includes(','))) return { expected: severalHosts }
  const [, name, inBrackets, portText = ''] = /^(?:([^:[\]]*)|\[([0-9a-f.:]+)\])(?::(\d{1,6}))?$/i.exec(hosts) ?? []
  const written = inBrackets ?? decode(name ?? '[')
  if (written === null) return { expected: expectedHost }
  const host = onlyOne(written, givenHost)
  const port = onlyOne(portText, givenPort)
  if (host === undefined || port === undefined) return { expected: 'the host and the port once' }
  const place = { host: host ?? 'localhost', port: readPort(port ?? '5432') }
  const fine =
    /^\/[^\p{Cc}]{0,100}$/u.test(place.host) || isIP(place.host) > 0 || /^[a-z0-9_][\w.-]*$/i.test(place.host)
  return fine && place.port !== null ? { value: { host: place.host, port: place.port } } : { expected: expectedHost }
}

/** What stands in one of two places; null: in neither; undefined: in both, so that it is not clear which one is meant. */
function onlyOne(first: string, second: string | undefined): string | null | undefined {
  if (first !== '' && second !== undefined) return undefined
  return first === '' ? (second ?? null) : first
}

/** The address without its passwords, for people. */
export function showPostgresAddress({ host, port, user, password, database, tls, settings }: PostgresAddress): string {
  const socket = host.startsWith('/')
  const query = [
    ...(socket ? [`host=${host}`, `port=${port}`] : []),
    ...(tls === null ? [] : [`sslmode=${tls.mode}`]),
    ...(tls?.files.ca ? [`sslrootcert=${tls.files.ca.path}`] : []),
    ...(tls?.files.client ? [`sslcert=${tls.files.client.cert.path}`] : []),
    ...(settings.size === 0 ? [] : [`options=${encodeURIComponent(formatOptions(settings))}`]),
  ]
  const place = socket ? '' : showPlace({ host, port })
  const name = encodeURIComponent(database ?? '')
  return `postgres://${showLogin(user ?? '', password ?? '')}${place}/${name}${query.length === 0 ? '' : `?${query.join('&')}`}`
}

/** Fills in what an address leaves open. A text that is no address stays as it is. */
export function completePostgresUrl(url: string, defaults: Readonly<Record<string, string | undefined>>): string {
  const parts = cut(url)
  const parameters = readQuery(parts?.query ?? '')
  if (parts === null || parameters === null) return url
  const [, host = '', port = ''] = /^(.*?)(?::(\d*))?$/.exec(parts.hosts) ?? []
  const written: Record<string, string> = { host, port, user: parts.user, password: parts.password, dbname: parts.path }
  const missing = Object.entries(defaults).filter(
    ([name, value]) => value !== undefined && value !== '' && !written[name] && !parameters.has(name),
  )
  if (missing.length === 0) return url
  const added = missing.map(([name, value]) => `${name}=${encodeURIComponent(value ?? '')}`).join('&')
  return `${url}${url.includes('?') ? (/[?&]$/.test(url) ? '' : '&') : '?'}${added}`
}
