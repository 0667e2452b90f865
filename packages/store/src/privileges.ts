import type pg from 'pg'
import { Client } from './client.ts'
import { sessionOptions } from './database.ts'

export type Privilege = 'select' | 'insert' | 'update' | 'delete'

const all: readonly Privilege[] = ['select', 'insert', 'update', 'delete']

/**
 * What the statements of this package do to each table: all that the role of the processes needs. A lock of a row (`for update`) takes
 * `update`. Tests compare this with the schema and with the statements.
 */
export const tablePrivileges: Readonly<Record<string, readonly Privilege[]>> = {
  answer_pieces: ['select', 'insert', 'delete'],
  answers: all,
  api_keys: ['select', 'insert', 'update'],
  attempts: all,
  batch_lines: all,
  batches: all,
  decisions: all,
  expiries: ['select', 'insert', 'delete'],
  file_parts: all,
  files: all,
  forgotten_jobs: ['select', 'insert', 'delete'],
  job_lists: ['select', 'insert', 'delete'],
  jobs: all,
  lanes: all,
  large_answers: all,
  open_attempts: ['select', 'insert', 'delete'],
  ready: all,
  requests: ['select', 'insert', 'delete'],
  schema_migrations: ['select'],
  settings: ['select'],
  stream_chunks: all,
  tenant_days: all,
  tenant_seconds: all,
  tenant_submissions: ['select', 'insert', 'update'],
  tenants: ['select', 'insert', 'update'],
  workers: all,
}

/** A privilege is missing, or the tables cannot be seen. The message says what, and which command prints the grants. */
export class GrantsError extends Error {}

/** Who asks, and where its tables are. */
export interface Place {
  role: string
  /** Where tables without a schema's name are made and found first; null: `search_path` names no schema that this role may use. */
  schema: string | null
}

/**
 * The privileges that the role of this address lacks, each as `delete on jobs`. Tables that do not exist are left out: they are the
 * schema check's.
 *
 * @throws the driver's error when Postgres is away.
 */
export async function readMissingGrants(url: string): Promise<Place & { missing: string[] }> {
  const client = new Client(sessionOptions(url, 'askonce grants check'))
  await client.connect()
  try {
    const wanted = Object.entries(tablePrivileges).flatMap(([table, privileges]) =>
      privileges.map((privilege) => ({ table, privilege })),
    )
    const { rows } = await client.query<{ lacks: string }>(
      `select privilege || ' on ' || name as lacks
       from unnest($1::text[], $2::text[]) with ordinality as wanted (name, privilege, place)
       where not has_table_privilege(to_regclass(quote_ident(name)), privilege)
       order by place`,
      [wanted.map(({ table }) => table), wanted.map(({ privilege }) => privilege)],
    )
    return { ...(await readPlace(client)), missing: rows.map(({ lacks }) => lacks) }
  } finally {
    await client.end()
  }
}

/** How the database keeps text: chosen when it was made. */
export async function readEncoding(url: string): Promise<{ database: string; encoding: string }> {
  const client = new Client(sessionOptions(url, 'askonce encoding check'))
  await client.connect()
  try {
    const { rows } = await client.query<{ database: string; encoding: string }>(
      `select current_database()::text as database, current_setting('server_encoding') as encoding`,
    )
    return rows[0] ?? { database: '', encoding: '' }
  } finally {
    await client.end()
  }
}

/** Tables and the like that are named of those on which something is missing. */
const mostNamed = 5

/** `delete on jobs`, `insert on jobs` … as a person says it: by table, and after some tables how many more there are. */
export function lacksText(missing: readonly string[]): string {
  const byPlace = new Map<string, string[]>()
  for (const one of missing) {
    const [privilege = '', place = ''] = one.split(/ on (.*)/s)
    byPlace.set(place, [...(byPlace.get(place) ?? []), privilege])
  }
  const named = [...byPlace].slice(0, mostNamed).map(([place, privileges]) => `${privileges.join(', ')} on ${place}`)
  const more = byPlace.size - named.length
  return `${named.join('; ')}${more > 0 ? `; and likewise on ${more} more` : ''}`
}

/** What a role lacks, in one sentence and a command. */
export function missingText(place: Place, missing: readonly string[]): string {
  return `The role ${quoteIdentifier(place.role)} lacks ${lacksText(missing)}. Run what this prints: ${grantsCommand(place)}`
}

/** The command that prints what the role lacks. */
export function grantsCommand({ role, schema }: Place): string {
  const elsewhere = schema === null || schema === 'public' ? '' : ` --schema ${shellWord(schema)}`
  return `askonce grants --role ${shellWord(role)}${elsewhere}`
}

export async function readPlace(client: pg.Client): Promise<Place> {
  const { rows } = await client.query<Place>('select current_user::text as role, current_schema()::text as schema')
  return rows[0] ?? { role: '', schema: null }
}

/** A name as SQL, whatever it is made of. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** A text as SQL. */
export function quoteLiteral(text: string): string {
  const escaped = text.replaceAll("'", "''")
  return text.includes('\\') ? `E'${escaped.replaceAll('\\', '\\\\')}'` : `'${escaped}'`
}

/** A word of a command line. */
export function shellWord(text: string): string {
  return /^[\w.-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}
