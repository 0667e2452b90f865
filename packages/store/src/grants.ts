import { quoteIdentifier, quoteLiteral, tablePrivileges } from './privileges.ts'

export interface GrantNames {
  /** The role of api, worker, janitor, and of the commands that work in the database. */
  role: string
  /** Where the tables are. */
  schema: string
}

/** What the role of the processes needs of our tables, once they are there. Can be run again, after each migration. */
export function roleGrants(names: GrantNames): string {
  const to = quoteIdentifier(names.role)
  const namespace = quoteIdentifier(names.schema)
  const tables = Object.entries(tablePrivileges).map(
    ([table, privileges]) => `grant ${privileges.join(', ')} on table ${namespace}.${quoteIdentifier(table)} to ${to};`,
  )
  return [
    ...ownSearchPath(names),
    mayConnect(names.role),
    `grant usage on schema ${namespace} to ${to};`,
    ...tables,
  ].join('\n')
}

/** What the role of `askonce migrate` needs before its first run. Can be run again. */
export function migratorGrants(names: GrantNames): string {
  const to = quoteIdentifier(names.role)
  const namespace = quoteIdentifier(names.schema)
  return [
    ...ownSearchPath(names),
    mayConnect(names.role),
    ...(names.schema === 'public' ? [] : [`create schema if not exists ${namespace};`]),
    `grant usage, create on schema ${namespace} to ${to};`,
  ].join('\n')
}

function mayConnect(role: string): string {
  return block(`execute format('grant connect on database %I to %I', current_database(), ${quoteLiteral(role)});`)
}

/** `public` is on everybody's path. A path that begins with the schema already is left alone: only some may alter a role. */
function ownSearchPath({ role, schema }: GrantNames): string[] {
  if (schema === 'public') return []
  const [name, path] = [quoteLiteral(role), `'search_path=' || quote_ident(${quoteLiteral(schema)})`]
  // Of this database, or of all: the same roles may have other paths elsewhere.
  const has =
    `(select from pg_db_role_setting, unnest(setconfig) as one where setrole = quote_ident(${name})::regrole ` +
    `and setdatabase in (0, (select oid from pg_database where datname = current_database())) ` +
    `and (one = ${path} or starts_with(one, ${path} || ',')))`
  const alter = `format('alter role %I in database %I set search_path = %I', ${name}, current_database(), ${quoteLiteral(schema)})`
  return [block(`if not exists ${has} then execute ${alter}; end if;`)]
}

/** Statements that psql runs as one; in it the database can be named that psql is connected to. */
function block(body: string): string {
  // A body may hold no mark of its own end.
  const mark = body.includes('$$') ? '$askonce$' : '$$'
  return `do ${mark} begin ${body} end ${mark};`
}
