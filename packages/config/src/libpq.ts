import { completePostgresUrl } from '@askonce/address'

/** Variables by name, as in `process.env`. */
export type Given = Readonly<Record<string, string | undefined>>

/** The variables of libpq, by the parameter of an address that each stands in for. */
const variables = {
  host: 'PGHOST',
  port: 'PGPORT',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  dbname: 'PGDATABASE',
  options: 'PGOPTIONS',
  sslmode: 'PGSSLMODE',
}
/** They mean something only where the connection is encrypted. */
const fileVariables = { sslrootcert: 'PGSSLROOTCERT', sslcert: 'PGSSLCERT', sslkey: 'PGSSLKEY' }

/** An address of a database, whose missing parts come from the variables of libpq: `postgres://` alone is all of them. */
export function completeDatabaseUrl(url: string, env: Given): string {
  const completed = completePostgresUrl(url, valuesOf(variables, env))
  const encrypted = /[?&]sslmode=(?!disable)/.test(completed)
  return encrypted ? completePostgresUrl(completed, valuesOf(fileVariables, env)) : completed
}

/** Variables of libpq that are set. Without an address they lead nowhere: what somebody's psql works on is not to be migrated by a start. */
export function libpqVariables(env: Given): string[] {
  return Object.values({ ...variables, ...fileVariables }).filter((name) => (env[name] ?? '') !== '')
}

/** What `pg` reads behind our back, and no address can take back. */
export function libpqProblems(env: Given): string[] {
  if ((env['PGREPLICATION'] ?? '') === '') return []
  return ['PGREPLICATION is set: it would make sessions that no statement works in. Unset it']
}

function valuesOf(names: Readonly<Record<string, string>>, env: Given): Record<string, string | undefined> {
  return Object.fromEntries(Object.entries(names).map(([parameter, name]) => [parameter, env[name]]))
}
