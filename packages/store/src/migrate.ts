import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type pg from 'pg'
import { Client } from './client.ts'
import { sessionOptions } from './database.ts'
import { readMigrationNeeds } from './migration-needs.ts'
import { grantsCommand, quoteIdentifier, readPlace, tablePrivileges } from './privileges.ts'

const directory = new URL('../../../migrations/', import.meta.url)

/** Serialises migrators. Taken as a transaction lock: a pooler cannot leak it. */
const migrationLock = 0x61_73_6b_31

/** How long a migrator waits for another one, and for a table that is in use. */
const migrationLockTimeoutMs = 60_000

/** How long the server may take to cancel a migrator's statement. */
const cancelLimitMs = 5_000

export interface Migration {
  version: number
  name: string
  sql: string
  checksum: string
}

/** The schema is not the one that this program needs; the message says what to run. */
export class SchemaVersionError extends Error {}

/** The database has migrations that this program does not know. */
export class NewerSchemaError extends SchemaVersionError {}

/** Migrations are missing and cannot be applied here; the message says what each of them lacks. Nothing was applied. */
export class CannotMigrateError extends SchemaVersionError {}

/** The numbered files in `migrations/`, in order. */
export async function loadMigrations(): Promise<Migration[]> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.sql')).toSorted()
  return Promise.all(
    names.map(async (name, index) => {
      const match = /^(\d{4})_[a-z0-9_]+\.sql$/.exec(name)
      if (match === null || Number(match[1]) !== index + 1) {
        throw new Error(`migrations/${name}: files are numbered 0001, 0002, … without gaps`)
      }
      const text = await readFile(new URL(name, directory), 'utf8')
      return { version: index + 1, name, sql: text, checksum: createHash('sha256').update(text).digest('hex') }
    }),
  )
}

interface AppliedMigration {
  version: number
  name: string
  checksum: string
}

/**
 * Applies what is missing, each migration in its own transaction; returns the names applied. Safe to run in parallel. Where nothing is
 * missing it only reads, so that any role that may read the tables can. `signal` ends it, also while it waits for a lock; what is under way
 * is rolled back then, and it rejects.
 */
export async function migrate(url: string, signal?: AbortSignal): Promise<string[]> {
  const migrations = await loadMigrations()
  const client = new Client(sessionOptions(url, 'askonce migrate'))
  await client.connect()
  const onAbort = (): void => void cancelStatement(url, client)
  signal?.addEventListener('abort', onAbort)
  try {
    if (!(await isIncomplete(client, migrations))) return []
    const needs = await readMigrationNeeds(client, Object.keys(tablePrivileges))
    if (needs.length > 0) throw new CannotMigrateError(cannotMigrateText(needs))
    // A migration takes as long as it takes. As an option of the driver, 0 would not even be sent.
    await client.query(`set statement_timeout = 0; set lock_timeout = '${migrationLockTimeoutMs}ms'`)
    const done: string[] = []
    for (const migration of migrations) {
      signal?.throwIfAborted()
      if (await applyOne(client, migration, migrations)) done.push(migration.name)
    }
    return done
  } finally {
    signal?.removeEventListener('abort', onAbort)
    await client.end()
  }
}

/** A statement that waits for a lock keeps those behind it waiting, also after its client has gone: the server has to be told. */
async function cancelStatement(url: string, client: pg.Client): Promise<void> {
  const { processID } = client as unknown as { processID: number }
  const other = new Client({ ...sessionOptions(url, 'askonce migrate'), queryLimitMs: cancelLimitMs })
  try {
    await other.connect()
    await other.query('select pg_cancel_backend($1)', [processID])
  } catch {
    // The server does not answer: our side at least ends.
    void client.end()
  } finally {
    void other.end()
  }
}

/** What {@link migrate} would lack, each with what mends it; empty: it can run, or has nothing to do. Changes nothing. */
export async function readMigrateNeeds(url: string): Promise<string[]> {
  const client = new Client(sessionOptions(url, 'askonce migrate'))
  await client.connect()
  try {
    if (!(await isIncomplete(client, await loadMigrations()))) return []
    return await readMigrationNeeds(client, Object.keys(tablePrivileges))
  } finally {
    await client.end()
  }
}

/** A list of needs as one message. */
export function cannotMigrateText(needs: readonly string[]): string {
  return `The database cannot be migrated, and nothing was applied:\n${needs.map((need) => `  - ${need}`).join('\n')}`
}

async function isIncomplete(client: pg.Client, known: readonly Migration[]): Promise<boolean> {
  const applied = await readApplied(client)
  verify(applied, known)
  return applied.length < known.length
}

/** None: there is no table of them, or none that this role sees. */
async function readApplied(client: pg.Client): Promise<AppliedMigration[]> {
  const { rows: found } = await client.query<{ exists: boolean }>(
    `select to_regclass('schema_migrations') is not null as exists`,
  )
  if (found[0]?.exists !== true) return []
  const { rows } = await client.query<AppliedMigration>(
    'select version, name, checksum from schema_migrations order by version',
  )
  return rows
}

async function applyOne(client: pg.Client, migration: Migration, known: Migration[]): Promise<boolean> {
  await client.query('begin')
  try {
    await client.query('select pg_advisory_xact_lock($1)', [migrationLock])
    await client.query(`
      create table if not exists schema_migrations (
        version integer primary key, name text not null, checksum text not null, applied_at timestamptz not null default now()
      )`)
    const { rows } = await client.query<AppliedMigration>('select version, name, checksum from schema_migrations')
    verify(rows, known)
    const missing = !rows.some((row) => row.version === migration.version)
    if (missing) {
      await client.query(migration.sql)
      await client.query('insert into schema_migrations (version, name, checksum) values ($1, $2, $3)', [
        migration.version,
        migration.name,
        migration.checksum,
      ])
    }
    await client.query('commit')
    return missing
  } catch (error) {
    await client.query('rollback').catch(() => undefined)
    throw error
  }
}

function verify(applied: readonly AppliedMigration[], known: readonly Migration[], { newerIsFine = false } = {}): void {
  for (const row of applied) {
    const file = known[row.version - 1]
    if (file === undefined) {
      if (newerIsFine) continue
      throw new NewerSchemaError(
        `The database has migration ${row.name}, which this version does not know. Run a version of Askonce at least as new.`,
      )
    }
    if (file.checksum !== row.checksum) {
      throw new SchemaVersionError(
        `migrations/${file.name} differs from what was applied to this database. Applied migrations must not be edited.`,
      )
    }
  }
}

/**
 * Refuses an older or newer schema: what a process asks before it starts. Rejects with {@link SchemaVersionError}, or with the driver's
 * error when Postgres is away or does not let the role look.
 *
 * @param options.newerIsFine for a process that runs already: migrations are harmless to the version before.
 */
export async function assertSchema(url: string, options: { newerIsFine?: boolean } = {}): Promise<void> {
  const known = await loadMigrations()
  const client = new Client(sessionOptions(url, 'askonce schema check'))
  await client.connect()
  try {
    const applied = await readApplied(client)
    verify(applied, known, options)
    const missing = known.filter(({ version }) => !applied.some((row) => row.version === version))
    if (missing.length === 0) return
    const names = missing.map(({ name }) => name).join(', ')
    if (applied.length > 0) {
      throw new SchemaVersionError(
        `The database schema is older than this version (${names} not applied). Run: askonce migrate`,
      )
    }
    throw new SchemaVersionError(
      `The database schema is missing (${names} not applied). ${await elsewhere(client)}Run: askonce migrate`,
    )
  } finally {
    await client.end()
  }
}

/** Where tables of ours are that this session does not see, and why not, for whoever is told that there are none. */
async function elsewhere(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ schema: string; usable: boolean }>(
    `select n.nspname::text as schema, has_schema_privilege(n.oid, 'usage') as usable
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relname = 'schema_migrations' and c.relkind = 'r'
       and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'checksum')
     order by 1`,
  )
  const [first] = rows
  if (first === undefined) return ''
  const { role } = await readPlace(client)
  const names = rows.map(({ schema }) => quoteIdentifier(schema)).join(', ')
  const why = rows.some(({ usable }) => usable)
    ? 'which search_path does not name'
    : `which the role ${quoteIdentifier(role)} may not use (what it needs is printed by: ${grantsCommand({ role, schema: first.schema })})`
  return `There are tables of Askonce in the schema ${names}, ${why}. If those are not meant: `
}

/** The identity of this database, as spool records name it. */
export async function readDatabaseId(url: string): Promise<string> {
  const client = new Client(sessionOptions(url, 'askonce'))
  await client.connect()
  try {
    const { rows } = await client.query<{ database_id: string }>('select database_id from settings')
    return rows[0]?.database_id ?? ''
  } finally {
    await client.end()
  }
}
