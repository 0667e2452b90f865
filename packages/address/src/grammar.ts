/**
 * What became of a text: its value, or what was expected (a phrase that follows "expected"). The phrase never holds a piece of the
 * text: where its parts cannot be told apart, any piece may belong to the password.
 */
export type Parsed<T> = { value: T } | { expected: string }

/** An address cut at its delimiters. Only user and password are decoded: what the rest may hold, each kind of address knows. */
export interface AddressParts {
  /** In lower case, without the colon. */
  readonly scheme: string
  readonly user: string
  readonly password: string
  readonly hosts: string
  /** Without the slash before it. */
  readonly path: string
  readonly query: string
}

/** Tokens that stand in for passwords at cloud providers take up to 2,000 characters. */
const maxLength = 8_192

const shape = /^([a-z]+(?:\+[a-z]+)?):\/\/(?:([^@/?#]*)@)?([^@/?#]*)(?:\/([^@?#]*))?(?:\?([^@#]*))?$/i

/** Ends what is said of an address that cannot be cut without doubt. */
export const encodingRule = 'percent-encode every # / ? @ % and space in user, password and names'

/**
 * Cuts an address. A delimiter that nobody encoded makes it null, and so does what cannot be decoded: the usual parsers of URLs take the
 * rest of such a password for a host, a path or a fragment, and print it.
 */
export function cut(given: string): AddressParts | null {
  if (given.length > maxLength || /[\s\p{Cc}]/u.test(given)) return null
  const match = shape.exec(given)
  if (match === null) return null
  const [, scheme = '', userInfo = '', hosts = '', path = '', query = ''] = match
  const colon = userInfo.indexOf(':')
  const user = decode(colon === -1 ? userInfo : userInfo.slice(0, colon))
  const password = decode(colon === -1 ? '' : userInfo.slice(colon + 1))
  if (user === null || password === null) return null
  return { scheme: scheme.toLowerCase(), user, password, hosts, path, query }
}

/** Without its percent-encoding; null if that is broken, or hides a byte that ends a string in every protocol. */
export function decode(text: string): string | null {
  try {
    const decoded = decodeURIComponent(text)
    return decoded.includes('\0') ? null : decoded
  } catch {
    return null
  }
}

/**
 * The parameters of a query, each once; null where they are in doubt. A plus sign is: some read it as a space.
 */
export function readQuery(query: string): Map<string, string> | null {
  const parameters = new Map<string, string>()
  for (const part of query === '' ? [] : query.split('&')) {
    const equals = part.indexOf('=')
    const name = part.slice(0, equals)
    const value = decode(part.slice(equals + 1))
    if (equals < 1 || value === null || part.includes('+') || !/^\w+$/.test(name) || parameters.has(name)) return null
    parameters.set(name, value)
  }
  return parameters
}

/** A server by its name or address. */
export interface Place {
  readonly host: string
  readonly port: number
}

/** `host`, `host:port` or `[address]:port`; null: something else. */
export function readPlace(given: string, defaultPort: number): Place | null {
  const [, name, address, port] = /^(?:([a-z0-9_][\w.-]*)|\[([0-9a-f.:]+)\])(?::(\d{1,5}))?$/i.exec(given) ?? []
  const host = name ?? address
  const number = readPort(port ?? String(defaultPort))
  return host === undefined || number === null ? null : { host, port: number }
}

/** 1 to 65535; null: no port. */
export function readPort(given: string): number | null {
  const port = /^\d{1,5}$/.test(given) ? Number(given) : 0
  return port >= 1 && port <= 65_535 ? port : null
}

/** `host:port`, with brackets around an IPv6 address. */
export function showPlace({ host, port }: Place): string {
  return `${host.includes(':') ? `[${host}]` : encodeURIComponent(host)}:${port}`
}

/** `user:[redacted]@`, or nothing where there is neither. */
export function showLogin(user: string, password: string): string {
  if (user === '' && password === '') return ''
  return `${encodeURIComponent(user)}${password === '' ? '' : ':[redacted]'}@`
}
