import { groundSettings, postgresParts } from '@askonce/address'
import { LATEST_SCHEMA_VERSION, runMigrations } from 'bullmq'
import pg from 'pg'

/** Brings BullMQ's own schema (`bullmq`) up to date. Safe to run in parallel. */
export async function migrateQueueSchema(url: string): Promise<void> {
  const client = new pg.Client({ ...postgresParts(url, groundSettings), application_name: 'askonce migrate' })
  await client.connect()
  try {
    await runMigrations(client)
  } finally {
    await client.end()
  }
}

/** BullMQ's schema is not the one that this program needs; the message says what to run. */
export class QueueSchemaError extends Error {}

/** Refuses a BullMQ schema that is not the one of this package: BullMQ itself accepts an older one of the same major silently. */
export async function assertQueueSchema(url: string): Promise<void> {
  const client = new pg.Client({ ...postgresParts(url, groundSettings), application_name: 'askonce schema check' })
  await client.connect()
  try {
    const { rows: found } = await client.query<{ exists: boolean }>(
      `select to_regclass('bullmq.migration') is not null as exists`,
    )
    const { rows } = found[0]?.exists
      ? await client.query<{ version: number }>('select max(version) as version from bullmq.migration')
      : { rows: [] }
    const version = rows[0]?.version ?? 0
    if (version !== LATEST_SCHEMA_VERSION) {
      throw new QueueSchemaError(
        version < LATEST_SCHEMA_VERSION
          ? `BullMQ's schema in Postgres is at version ${version}, this program needs ${LATEST_SCHEMA_VERSION}. Run: askonce migrate`
          : `BullMQ's schema in Postgres is at version ${version}, newer than ${LATEST_SCHEMA_VERSION}. Run a newer Askonce.`,
      )
    }
  } finally {
    await client.end()
  }
}
