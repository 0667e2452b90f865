import { loadConfig, type Config } from '@askonce/config'
import { embeddedUrl } from '@askonce/embedded'
import type { Database } from '@askonce/store'
import { CliError, exitCodes, reasonOf } from './errors.ts'

/** The database server of this configuration, never its pooler: what the environment names, else the embedded one if it runs; null: it does not. */
export function databaseUrl({ database: { directUrl, url }, dataDir }: Config): string | null {
  return (directUrl ?? url)?.reveal() ?? embeddedUrl(dataDir) ?? null
}

/** Says that variables of libpq name a server that is not used; empty: there are none. */
export function unreadNotice({ database: { unread } }: Config): string {
  if (unread.length === 0) return ''
  const verb = unread.length === 1 ? 'is' : 'are'
  return ` ${unread.join(', ')} ${verb} set and not read without DATABASE_URL: to use the server that psql would, set DATABASE_URL=postgres://`
}

/** Runs `use` on the database itself: for what must work without the API. Throws CliError when it is away or not migrated. */
export async function withDatabase<T>(use: (database: Database, config: Config) => Promise<T>): Promise<T> {
  const config = loadConfig()
  const url = databaseUrl(config)
  if (url === null) {
    throw new CliError(
      exitCodes.unreachable,
      `no database found: DATABASE_URL is not set and no embedded one runs on ${config.dataDir}`,
      `Start it with: npm start (or set DATABASE_URL).${unreadNotice(config)}`,
    )
  }
  const { assertSchema, openDatabase, SchemaVersionError } = await import('@askonce/store')
  await assertSchema(url).catch((error: unknown) => {
    if (error instanceof SchemaVersionError) throw new CliError(exitCodes.failed, error.message)
    throw new CliError(
      exitCodes.unreachable,
      `the database cannot be used: ${reasonOf(error)}`,
      'askonce doctor says more.',
    )
  })
  const database = openDatabase({ url, name: 'askonce cli', poolSize: 2 })
  try {
    return await use(database, config)
  } finally {
    await database.close()
  }
}
