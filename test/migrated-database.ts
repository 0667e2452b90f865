import { queueMigratorGrants, queueRoleGrants } from '@askonce/queue'
import { migrate, migratorGrants, quoteIdentifier, roleGrants } from '@askonce/store'
import type { TestPostgres } from '@askonce/testkit'
import pg from 'pg'

/** A migrated database of a test, and how it is reached. */
export interface MigratedDatabase {
  name: string
  /** As the processes under test reach it. */
  url: string
  /** As its superuser, for what a test does behind their backs. */
  adminUrl: string
}

const migrator = 'test migrator'

/**
 * Makes a database with our schema. With ASKONCE_TEST_ROLE=app, which `npm run test:grants` sets, the schema belongs to a migrating role, and
 * the processes connect as the role of that name with what `askonce grants` prints, and nothing else.
 */
export async function migratedDatabase(server: TestPostgres): Promise<MigratedDatabase> {
  const { name, url: adminUrl } = await server.createDatabase()
  const role = process.env['ASKONCE_TEST_ROLE'] ?? ''
  if (role === '') {
    await migrate(adminUrl)
    return { name, url: adminUrl, adminUrl }
  }
  await makeRole(adminUrl, migrator)
  await makeRole(adminUrl, role)
  await run(adminUrl, 'revoke all on schema public from public')
  await run(
    adminUrl,
    migratorGrants({ role: migrator, schema: 'public' }),
    queueMigratorGrants(quoteIdentifier(migrator)),
  )
  await migrate(asRole(adminUrl, migrator))
  await run(adminUrl, roleGrants({ role, schema: 'public' }), queueRoleGrants(quoteIdentifier(role)))
  return { name, url: asRole(adminUrl, role), adminUrl }
}

/** The same address, for another role whose password is its name. */
export function asRole(url: string, role: string): string {
  const address = new URL(url)
  address.username = encodeURIComponent(role)
  address.password = encodeURIComponent(role)
  return address.href
}

/** A role that may log in and nothing else, unless it is there. */
export async function makeRole(adminUrl: string, role: string): Promise<void> {
  const name = quoteIdentifier(role)
  const text = `'${role.replaceAll("'", "''")}'`
  const rows = await run(adminUrl, `select from pg_roles where rolname = ${text}`)
  if (rows.length === 0) await run(adminUrl, `create role ${name} login password ${text}`)
}

/** Runs texts of SQL one after the other; the rows of the last one. */
export async function run(url: string, ...texts: string[]): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    let rows: Record<string, unknown>[] = []
    for (const text of texts) rows = (await client.query<Record<string, unknown>>(text)).rows ?? []
    return rows
  } finally {
    await client.end()
  }
}
