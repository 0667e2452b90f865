import type { CliError } from '../errors.ts'
import { refusal } from '../errors.ts'

/** What to do about what waiting does not mend, by SQLSTATE. */
const advice: Readonly<Record<string, string>> = {
  '28P01':
    'Check DATABASE_URL and DATABASE_DIRECT_URL: user and password. In an address a password is percent-encoded.',
  '28000': 'Check DATABASE_URL and DATABASE_DIRECT_URL: the user, and whether pg_hba.conf lets it in from here.',
  '3D000': `Create it (create database NAME encoding 'UTF8' template template0;), or check DATABASE_URL and DATABASE_DIRECT_URL.`,
  '42501':
    'The role lacks a privilege: askonce grants --role NAME prints what it needs, --migrator NAME what askonce migrate needs.',
}

/** How a role ends when Postgres says no. The message of Postgres names roles, databases and tables, never a password. */
export function postgresRefusal(error: Error): CliError {
  const { code } = error as { code?: unknown }
  const todo = typeof code === 'string' ? advice[code] : undefined
  return refusal(`Postgres refuses: ${error.message}. ${todo ?? 'Check DATABASE_URL and DATABASE_DIRECT_URL.'}`)
}
