import { isIP } from 'node:net'
import {
  parsePostgresUrl,
  parseRedisUrl,
  readTlsFiles,
  showPostgresAddress,
  showRedisAddress,
  TlsFileError,
  type TlsFiles,
} from '@askonce/address'
import { Secret } from './secret.ts'

/** What a reader made of a text: the value, or what it would have expected (a phrase that follows "expected"). */
export type Reading<T> = { value: T } | { expected: string }

/** A whole number in decimal digits between `min` and `max`, multiplied by `scale` (seconds to milliseconds). */
export function readInteger(given: string, min: number, max: number, scale = 1): Reading<number> {
  const value = /^\d{1,15}$/.test(given) ? Number(given) : Number.NaN
  return value >= min && value <= max ? { value: value * scale } : { expected: `a whole number from ${min} to ${max}` }
}

/** A share from 0 to 1 in plain decimal notation. */
export function readShare(given: string): Reading<number> {
  const value = /^(\d+|\d*\.\d+)$/.test(given) ? Number(given) : Number.NaN
  return value <= 1 ? { value } : { expected: 'a number from 0 to 1' }
}

export function readHost(given: string): Reading<string> {
  const named = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/i.test(given)
  return isIP(given) || named ? { value: given } : { expected: 'an IP address or a host name, without scheme and port' }
}

export function readOneOf<const T extends string>(given: string, choices: readonly T[]): Reading<T> {
  const value = choices.find((choice) => choice === given)
  return value === undefined ? { expected: `one of ${choices.join(', ')}` } : { value }
}

/** Braces make Redis hash all keys of a cluster to one slot. They are ours: given ones could make another part the hashed one. */
export function readRedisPrefix(given: string): Reading<string> {
  if (/^[\w.:-]{1,40}$/.test(given)) return { value: `{${given}}` }
  return { expected: '1 to 40 letters, digits, -, _, . and :' }
}

/** Visible ASCII only: anything else cannot travel in an HTTP header. */
export function readKey(given: string, min: number, max: number): Reading<Secret> {
  if (/^[\x21-\x7e]+$/.test(given) && given.length >= min && given.length <= max) return { value: new Secret(given) }
  return { expected: `${min} to ${max} printable ASCII characters without spaces` }
}

/** null instead of an exception (`URL.parse` came with Node 22). */
function parseUrl(given: string): URL | null {
  return URL.canParse(given) ? new URL(given) : null
}

/** `DATABASE_URL`, whose files must be there. It prints without its passwords. */
export function readPostgresUrl(given: string): Reading<Secret> {
  const parsed = parsePostgresUrl(given)
  if ('expected' in parsed) return parsed
  const problem = parsed.value.tls === null ? null : filesProblem(parsed.value.tls.files)
  return problem === null ? { value: new Secret(given, showPostgresAddress(parsed.value)) } : { expected: problem }
}

/** What is wrong with the files of a connection with TLS, as a phrase that follows "expected". */
export function filesProblem(files: TlsFiles): string | null {
  try {
    readTlsFiles(files)
    return null
  } catch (error) {
    if (error instanceof TlsFileError) return `files that can be used, but ${error.message}`
    throw error
  }
}

/** `REDIS_URL` in any of its forms. It prints without its passwords. */
export function readRedisUrl(given: string): Reading<Secret> {
  const parsed = parseRedisUrl(given)
  return 'value' in parsed ? { value: new Secret(given, showRedisAddress(parsed.value)) } : parsed
}

/** An http(s) address without credentials, query and fragment; trailing slashes are dropped. */
export function readHttpUrl(given: string): Reading<string> {
  const url = parseUrl(given)
  // What stands before an @ may be a password that was cut at its first slash: it would be printed as a path.
  if (url && given.includes('@'))
    return { expected: 'an address without user and password: the key has its own variable' }
  if (!url || !/^https?:$/.test(url.protocol) || url.hostname === '')
    return { expected: 'an http:// or https:// address' }
  if (url.search !== '' || url.hash !== '') return { expected: 'an address without query and fragment' }
  return { value: given.replace(/\/+$/, '') }
}

/** As `readHttpUrl`; the paths of this API begin with /v1 already, as in Anthropic's own SDK. */
export function readAnthropicUrl(given: string): Reading<string> {
  const read = readHttpUrl(given)
  if (!('value' in read && read.value.endsWith('/v1'))) return read
  return {
    expected: 'an address without the trailing /v1, which each call adds (only OpenAI-compatible addresses end in /v1)',
  }
}

/** Whose values are ours, the provider's account's, or of one connection. */
const ownHeaders =
  /^(?:authorization|x-api-key|api-key|cookie|host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|accept|accept-encoding|user-agent|idempotency-key|last-event-id|prefer|range|anthropic-version|(?:content|proxy|askonce|sec)-.*|x-(?:forwarded|goog|amz)-.*|.*-beta)$/
const maxHeaderNames = 20

const mayBePassedOn = (name: string): boolean => /^[a-z0-9-]{1,64}$/.test(name) && !ownHeaders.test(name)

/** Names of headers that may be passed on, in lower case. */
export function readHeaderNames(given: string): Reading<readonly string[]> {
  if (given === 'none') return { value: [] }
  const names = given.split(',').map((name) => name.trim().toLowerCase())
  if (names.length <= maxHeaderNames && names.every(mayBePassedOn)) return { value: [...new Set(names)] }
  return {
    expected: `at most ${maxHeaderNames} names of headers that carry neither credentials nor the connection, or none`,
  }
}
