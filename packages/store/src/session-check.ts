import type pg from 'pg'
import { SessionSettingsError } from './errors.ts'

/** What every session of a kind has to be like. */
export interface SessionRules {
  /** Setting to value, as pg_settings writes it. */
  settings: Readonly<Record<string, string>>
  /** Behind a pooler in transaction mode, which passes no settings on: there only what an acknowledged commit is worth has to be right. */
  pooled: boolean
}

/** A setting that is not as it should be. */
export interface Deviation {
  setting: string
  wanted: string
  found: string
}

interface Seen {
  deviations: Deviation[]
  /** Run as the role or by a superuser, it gives new sessions what they lack; empty when they lack nothing. */
  remedy: string
}

/** So many settings are named in a message; a log line has an end. */
const mostNamed = 3

/** A refusal is repeated without a new connection for so long: connections cost the server most, and many may ask at once. */
const refusalLastsMs = 1_000
const refusals = new WeakMap<SessionRules, { error: SessionSettingsError; atMs: number }>()

/** Rejects while a refusal of the same pool is young. To be called before connecting. */
export function refuseAgain(rules: SessionRules): void {
  const last = refusals.get(rules)
  if (last !== undefined && performance.now() - last.atMs < refusalLastsMs) throw last.error
}

/**
 * Compares a new session with its rules, for what we send at its start may not have arrived: a pooler, a proxy, or an address may drop
 * it. One reading of pg_settings, 1 to 2 ms where the connection itself takes 40.
 *
 * @throws SessionSettingsError, or the driver's error.
 */
export async function checkSession(client: pg.Client, rules: SessionRules): Promise<Seen> {
  const { settings, pooled } = rules
  const { rows } = await client.query<{ role: string; name: string; setting: string }>(
    `select quote_ident(session_user) as role, name, setting from pg_settings where name in (${[
      ...Object.keys(settings),
      'synchronous_standby_names',
    ]
      .map((name) => client.escapeLiteral(name))
      .join(', ')})
     union all select quote_ident(session_user), 'role', current_setting('role')`,
  )
  const found = new Map(rows.map(({ name, setting }) => [name, setting]))
  const deviations = Object.entries(settings)
    .map(([setting, wanted]) => ({ setting, wanted, found: found.get(setting) ?? 'unknown' }))
    .filter((one) => one.found !== one.wanted && !(one.setting === 'search_path' && sameList(one.found, one.wanted)))
  const remedy = deviations
    .map(({ setting, wanted }) => {
      // In quotes, a list would be one name.
      const value = setting === 'search_path' ? wanted : `'${wanted}'`
      return `alter role ${rows[0]?.role ?? 'session_user'} set ${setting} = ${value};`
    })
    .join(' ')
  const weak = isWeak(found.get('synchronous_commit') ?? 'unknown', found.get('synchronous_standby_names') ?? '')
  if (weak || (!pooled && deviations.length > 0)) {
    const error = refusalOf(deviations, weak, pooled, remedy)
    refusals.set(rules, { error, atMs: performance.now() })
    throw error
  }
  return { deviations, remedy }
}

/** The server writes a list in its own way when it comes from a role. */
function sameList(one: string, other: string): boolean {
  const [first, second] = [one, other].map((list) => list.replaceAll(/[\s"']/g, ''))
  return first === second
}

function refusalOf(deviations: Deviation[], weak: boolean, pooled: boolean, remedy: string): SessionSettingsError {
  const named = deviations
    .slice(0, mostNamed)
    .map(({ setting, found, wanted }) => `${setting} is ${found} instead of ${wanted}`)
  const more = deviations.length > mostNamed ? `, and ${deviations.length - mostNamed} more` : ''
  const elsewhere = deviations.some(({ setting }) => setting === 'search_path' || setting === 'role')
  const risk = weak
    ? 'what is acknowledged could be lost'
    : elsewhere
      ? 'it would work on other tables, or as another role'
      : 'statements could wait for ever'
  const todo = pooled
    ? `As the role or a superuser run: ${remedy} Then let the pooler reconnect (RECONNECT in its console).`
    : `Something between this process and PostgreSQL drops the start-up options: a pooler, or a proxy. Set DATABASE_DIRECT_URL to the server itself, or give the role the settings: ${remedy} Then let a pooler reconnect (RECONNECT in PgBouncer’s console): its open sessions keep what they began with.`
  const where = pooled ? ' behind the pooler of DATABASE_URL' : ' in a new session'
  return new SessionSettingsError(`${named.join(', ')}${more}${where}: ${risk}`, todo)
}

/** Whether an acknowledged commit could be lost although a session with `on` would have kept it. Without a standby all but `off` wait for the disk. */
function isWeak(synchronousCommit: string, standbys: string): boolean {
  if (synchronousCommit === 'on' || synchronousCommit === 'remote_apply') return false
  return synchronousCommit === 'off' || standbys !== ''
}
