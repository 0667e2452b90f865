import type { Parsed } from './grammar.ts'

/**
 * What our statements and the driver take for granted: every session is given these, because a default of the role or the database may be
 * another. The guards of statements count on READ COMMITTED, dates are read as ISO, the NULL in an array as no value.
 */
export const groundSettings: Readonly<Record<string, string>> = {
  default_transaction_isolation: 'read committed',
  standard_conforming_strings: 'on',
  array_nulls: 'on',
  bytea_output: 'hex',
  DateStyle: 'ISO, MDY',
}

/**
 * Settings that an address may bring along in `options`. A list of what is harmless, since that of what is not grows with every release
 * of PostgreSQL: everything that Askonce relies on, or sets itself, is refused by not standing here.
 */
const allowed = [
  'search_path',
  'role',
  'timezone',
  'work_mem',
  'maintenance_work_mem',
  'hash_mem_multiplier',
  'temp_tablespaces',
  'default_tablespace',
  'max_parallel_workers_per_gather',
  'max_parallel_maintenance_workers',
  'client_connection_check_interval',
  'tcp_keepalives_idle',
  'tcp_keepalives_interval',
  'tcp_keepalives_count',
  'tcp_user_timeout',
]

const forms = 'options as in -c name=value, with a backslash before each space of a value'

/** Reads `options` as libpq passes them on: `-c name=value`, `-cname=value` and `--name=value`. */
export function parseOptions(text: string): Parsed<Map<string, string>> {
  if (/^\s*(?:endpoint|project|reference)=/.test(text)) {
    return {
      expected:
        'an address without options=endpoint=…, project=… or reference=…: TLS tells the provider the host name, by which it finds the database. Delete that parameter',
    }
  }
  const words = splitWords(text)
  const settings = new Map<string, string>()
  while (words.length > 0) {
    const word = words.shift() ?? ''
    const assignment = word === '-c' ? (words.shift() ?? '') : word.replace(/^-c|^--/, '')
    const [, written, value] = /^([a-z][\w.-]*)=(.*)$/is.exec(assignment) ?? []
    if (written === undefined || value === undefined || (word !== '-c' && assignment === word))
      return { expected: forms }
    // The server reads - in a name as _.
    const name = written.toLowerCase().replaceAll('-', '_')
    if (!allowed.includes(name)) {
      return {
        expected: `options that set nothing but ${allowed.join(', ')}: what else there is, ${name} too, Askonce sets itself or relies on`,
      }
    }
    settings.set(name, value)
  }
  return { value: settings }
}

/** Splits at white space, as the server does: a backslash makes the next character part of the word. */
function splitWords(text: string): string[] {
  const words = text.match(/(?:\\.|[^\s\\])+/gs) ?? []
  return words.map((word) => word.replaceAll(/\\(.)/gs, '$1'))
}

/** Settings as `options` of the start-up packet. */
export function formatOptions(settings: Iterable<readonly [name: string, value: string]>): string {
  return [...settings].map(([name, value]) => `-c ${name}=${value.replaceAll(/[\\\s]/g, '\\$&')}`).join(' ')
}
