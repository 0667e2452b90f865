import { groundSettings, postgresParts } from '@askonce/address'
import pg from 'pg'

/** BullMQ's schema in Postgres. It has one name, whatever schema our tables are in. */
const schema = 'bullmq'

/**
 * What the role of the processes needs where BullMQ is on Postgres. Where BullMQ's schema is not there it does nothing. BullMQ makes one
 * sequence for each lane by itself, and temporary tables while it takes several jobs at once. Those sequences belong to this role: the
 * owner of the others could not grant them.
 *
 * @param role as an SQL identifier.
 */
export function queueRoleGrants(role: string): string {
  const mark = role.includes('$$') ? '$askonce$' : '$$'
  const literal = `'${role.replaceAll("'", "''")}'`
  return `do ${mark} declare one record; begin
  if to_regnamespace('${schema}') is not null then
    execute format('grant temporary on database %I to %s', current_database(), ${literal});
    grant usage, create on schema ${schema} to ${role};
    grant select, insert, update, delete on all tables in schema ${schema} to ${role};
    for one in select oid::regclass as name from pg_class
      where relnamespace = '${schema}'::regnamespace and relkind = 'S' and relowner <> ${literal}::regrole
    loop
      execute format('grant usage on sequence %s to %s', one.name, ${literal});
    end loop;
  end if;
end ${mark};`
}

/**
 * What the role of `askonce migrate` needs where BullMQ is on Postgres: the schema is made for it, so that it need not make schemas.
 *
 * @param role as an SQL identifier.
 */
export function queueMigratorGrants(role: string): string {
  return `create schema if not exists ${schema};\ngrant usage, create on schema ${schema} to ${role};`
}

/**
 * The privileges that the role of this address lacks on BullMQ's schema, each as `usage on schema bullmq`; empty, too, where there is none.
 *
 * @throws the driver's error when Postgres is away.
 */
export async function readMissingQueueGrants(url: string): Promise<string[]> {
  const client = new pg.Client({ ...postgresParts(url, groundSettings), application_name: 'askonce grants check' })
  await client.connect()
  try {
    const { rows } = await client.query<{ lacks: string }>(
      `with namespace as (select oid from pg_namespace where nspname = $1), wanted as (
         select p || ' on schema ' || $1 as lacks, has_schema_privilege(n.oid, p) as has
         from namespace n, unnest(array['usage', 'create']) p
         union all
         select 'temporary on database ' || quote_ident(current_database()), has_database_privilege(current_database(), 'temporary')
         from namespace
         union all
         select p || ' on ' || $1 || '.' || c.relname, has_table_privilege(c.oid, p)
         from namespace n join pg_class c on c.relnamespace = n.oid and c.relkind in ('r', 'p'),
           unnest(array['select', 'insert', 'update', 'delete']) p
         union all
         -- Asked only of sequences: Postgres may ask before it has looked which they are.
         select 'usage on sequence ' || $1 || '.' || c.relname, case c.relkind when 'S' then has_sequence_privilege(c.oid, 'usage') end
         from namespace n join pg_class c on c.relnamespace = n.oid and c.relkind = 'S'
       )
       select lacks from wanted where not has`,
      [schema],
    )
    return rows.map(({ lacks }) => lacks)
  } finally {
    await client.end()
  }
}
