import { groundSettings, postgresParts } from '@askonce/address'
import { LATEST_SCHEMA_VERSION, runMigrations } from 'bullmq'
import pg from 'pg'

/**
 * Brings BullMQ's own schema (`bullmq`) up to date. Safe to run in parallel. Where nothing is missing it only reads, so that any role that may
 * read can. Rejects with {@link QueueSchemaError} where the schema is newer than this program.
 */
export async function migrateQueueSchema(url: string): Promise<void> {
  await withClient(url, 'askonce migrate', async (client) => {
    const { version, exists } = await readSchema(client)
    if (version > LATEST_SCHEMA_VERSION) throw new QueueSchemaError(newerText(version))
    if (version < LATEST_SCHEMA_VERSION) await runMigrations(exists ? withoutCreatingSchema(client) : client)
  })
}

/** What {@link migrateQueueSchema} would lack, each with what mends it; empty: it can run, or has nothing to do. Changes nothing. */
export async function readQueueMigrateNeeds(url: string): Promise<string[]> {
  return withClient(url, 'askonce migrate', async (client) => {
    const { version } = await readSchema(client)
    if (version >= LATEST_SCHEMA_VERSION) return []
    const { rows } = await client.query<{ need: string }>(
      `with me as (select quote_ident(current_user) as role, quote_ident(current_database()) as database),
         namespace as (select oid from pg_namespace where nspname = 'bullmq')
       select 'The role ' || role || ' may not make BullMQ''s schema: create schema bullmq authorization ' || role || '; (or: grant create on database '
         || database || ' to ' || role || ';)' as need
       from me where not exists (select from namespace) and not has_database_privilege(current_database(), 'create')
       union all
       select 'The role ' || role || ' may not make tables in BullMQ''s schema: grant usage, create on schema bullmq to ' || role || ';'
       from me, namespace n where not (has_schema_privilege(n.oid, 'usage') and has_schema_privilege(n.oid, 'create'))
       union all
       select distinct 'BullMQ''s tables belong to ' || quote_ident(pg_get_userbyid(c.relowner)) || ', and only their owner may change them. Migrate '
         || 'as that role, or: grant ' || quote_ident(pg_get_userbyid(c.relowner)) || ' to ' || role || ';'
       from me, namespace n join pg_class c on c.relnamespace = n.oid and c.relkind in ('r', 'p')
       where not pg_has_role(c.relowner, 'usage')`,
    )
    return rows.map(({ need }) => need)
  })
}

/** BullMQ makes its schema "if not exists", for which Postgres asks the right to make schemas even where it does. */
function withoutCreatingSchema(client: pg.Client): pg.Client {
  const query = (text: string, values?: unknown[]): unknown =>
    text.startsWith('CREATE SCHEMA IF NOT EXISTS') ? Promise.resolve({ rows: [] }) : client.query(text, values)
  return { query } as unknown as pg.Client
}

/** BullMQ's schema is not the one that this program needs; the message says what to run. */
export class QueueSchemaError extends Error {}

/** Refuses a BullMQ schema that is not the one of this package: BullMQ itself accepts an older one of the same major silently. */
export async function assertQueueSchema(url: string): Promise<void> {
  const { version } = await withClient(url, 'askonce schema check', readSchema)
  if (version > LATEST_SCHEMA_VERSION) throw new QueueSchemaError(newerText(version))
  if (version < LATEST_SCHEMA_VERSION) {
    throw new QueueSchemaError(
      `BullMQ's schema in Postgres is at version ${version}, this program needs ${LATEST_SCHEMA_VERSION}. Run: askonce migrate`,
    )
  }
}

function newerText(version: number): string {
  return `BullMQ's schema in Postgres is at version ${version}, newer than ${LATEST_SCHEMA_VERSION}. Run a newer Askonce.`
}

/** Version 0: no migration was applied. */
async function readSchema(client: pg.Client): Promise<{ exists: boolean; version: number }> {
  const { rows: found } = await client.query<{ exists: boolean; migrated: boolean }>(
    `select exists (select from pg_namespace where nspname = 'bullmq') as exists,
       exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'bullmq' and c.relname = 'migration') as migrated`,
  )
  const { exists = false, migrated = false } = found[0] ?? {}
  if (!migrated) return { exists, version: 0 }
  const { rows } = await client.query<{ version: number | null }>(
    'select max(version) as version from bullmq.migration',
  )
  return { exists, version: rows[0]?.version ?? 0 }
}

async function withClient<T>(url: string, name: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ ...postgresParts(url, groundSettings), application_name: name })
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}
