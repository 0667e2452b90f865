import type pg from 'pg'
import { quoteIdentifier, shellWord } from './privileges.ts'

/** The oldest PostgreSQL that the migrations are written for. */
export const oldestPostgres = 15

interface Facts {
  database: string
  encoding: string
  versionNumber: number
  version: string
  role: string
  schema: string | null
  /** As it is set, with schemas that do not exist or may not be used. */
  searchPath: string
  mayUseSchema: boolean
  mayCreate: boolean
  /** Who else owns tables of ours. */
  owners: string[]
}

/**
 * What a migrator lacks, each with what mends it; empty: nothing. Read before the first migration, so that none is applied where a later one
 * would fail.
 *
 * @param tables names of tables that migrations may change.
 */
export async function readMigrationNeeds(client: pg.Client, tables: readonly string[]): Promise<string[]> {
  const { rows } = await client.query<Facts>(
    `select
       current_database()::text as database, current_setting('server_encoding') as encoding,
       current_setting('server_version_num')::int as "versionNumber", current_setting('server_version') as version,
       current_user::text as role, current_schema()::text as schema, current_setting('search_path') as "searchPath",
       coalesce(has_schema_privilege(current_schema(), 'usage'), false) as "mayUseSchema",
       coalesce(has_schema_privilege(current_schema(), 'create'), false) as "mayCreate",
       array(
         select distinct pg_get_userbyid(c.relowner)::text from pg_class c
         where c.relnamespace = to_regnamespace(quote_ident(current_schema())) and c.relkind = 'r' and c.relname = any ($1)
           and not pg_has_role(c.relowner, 'usage')
       ) as owners`,
    [tables],
  )
  const [facts] = rows
  if (facts === undefined) return []
  return [
    ...versionNeeds(facts),
    ...encodingNeeds(facts),
    ...(facts.schema === null ? [noSchema(facts)] : schemaNeeds(facts, facts.schema)),
  ]
}

function versionNeeds({ versionNumber, version }: Facts): string[] {
  if (versionNumber >= oldestPostgres * 10_000) return []
  return [`The server is PostgreSQL ${version}: ${oldestPostgres} or newer is needed.`]
}

function encodingNeeds({ database, encoding }: Facts): string[] {
  return encoding === 'UTF8' ? [] : [encodingText(database, encoding)]
}

/** What is wrong with the encoding of a database, and what to do. */
export function encodingText(database: string, encoding: string): string {
  return (
    `The database ${quoteIdentifier(database)} has the encoding ${encoding}, and UTF8 is needed. It is chosen when a database is made: ` +
    `create database ${quoteIdentifier(`${database}_utf8`)} encoding 'UTF8' locale 'C' template template0;`
  )
}

function noSchema({ role, searchPath }: Facts): string {
  return (
    `search_path (${searchPath}) names no schema that exists and that the role ${quoteIdentifier(role)} may use. ` +
    `What it needs is printed by: askonce grants --migrator ${shellWord(role)} --schema NAME`
  )
}

function schemaNeeds({ role, mayUseSchema, mayCreate, owners }: Facts, schema: string): string[] {
  const missing = [...(mayUseSchema ? [] : ['usage']), ...(mayCreate ? [] : ['create'])].join(', ')
  const [name, to] = [quoteIdentifier(schema), quoteIdentifier(role)]
  return [
    ...(missing === ''
      ? []
      : [`The role ${to} may not make tables in the schema ${name}: grant ${missing} on schema ${name} to ${to};`]),
    ...owners.map(
      (owner) =>
        `The tables in the schema ${name} belong to ${quoteIdentifier(owner)}, and only their owner may change them. Migrate as ` +
        `that role, or: grant ${quoteIdentifier(owner)} to ${to};`,
    ),
  ]
}
