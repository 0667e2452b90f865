import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type pg from 'pg'
import { Client } from './client.ts'
import { sessionOptions } from './database.ts'

const directory = new URL('../../../migrations/', import.meta.url)

/** Serialises migrators. Taken as a transaction lock: a pooler cannot leak it. */
const migrationLock = 0x61_73_6b_31

/** How long a migrator waits for another one, and for a table that is in use. */
const migrationLockTimeoutMs = 60_000

export interface Migration {
  version: number
  name: string
  sql: string
  checksum: string
}

/** The schema is not the one that this program needs; the message says what to run. */
export class SchemaVersionError extends Error {}

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

/** Applies what is missing, each migration in its own transaction; returns the names applied. Safe to run in parallel. */
export async function migrate(url: string): Promise<string[]> {
  const migrations = await loadMigrations()
  const client = new Client(sessionOptions(url, 'askonce migrate'))
  await client.connect()
  try {
    // A migration takes as long as it takes. As an option of the driver, 0 would not even be sent.
    await client.query(`set statement_timeout = 0; set lock_timeout = '${migrationLockTimeoutMs}ms'`)
    const done: string[] = []
    for (const migration of migrations) {
      if (await applyOne(client, migration, migrations)) done.push(migration.name)
    }
    return done
  } finally {
    await client.end()
  }
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

function verify(applied: readonly AppliedMigration[], known: readonly Migration[]): void {
  for (const row of applied) {
    const file = known[row.version - 1]
    if (file === undefined) {
      throw new SchemaVersionError(
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

/** Refuses an older or newer schema. Rejects with {@link SchemaVersionError}, or with the driver's error when Postgres is away. */
export async function assertSchema(url: string): Promise<void> {
  const known = await loadMigrations()
  const client = new Client(sessionOptions(url, 'askonce schema check'))
  await client.connect()
  try {
    const { rows: found } = await client.query<{ exists: boolean }>(
      `select to_regclass('schema_migrations') is not null as exists`,
    )
    const { rows: applied } = found[0]?.exists
      ? await client.query<AppliedMigration>('select version, name, checksum from schema_migrations order by version')
      : { rows: [] }
    verify(applied, known)
    if (applied.length < known.length) {
      const missing = known.slice(applied.length).map(({ name }) => name)
      throw new SchemaVersionError(
        `The database schema is ${applied.length === 0 ? 'missing' : 'older than this version'} (${missing.join(', ')} not applied). Run: askonce migrate`,
      )
    }
  } finally {
    await client.end()
  }
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
