import { databaseUrlOf, readConfig } from './environment.ts'
import { openLog } from './log.ts'
import { migrateAll } from './schema.ts'
import { catchSignals } from './signals.ts'

/** Brings the schema up to date, once Postgres answers. */
export async function runMigrate(): Promise<void> {
  const config = readConfig()
  const log = openLog(config.log.level, 'migrate')
  const applied = await migrateAll(databaseUrlOf(config), log, catchSignals().first)
  process.stdout.write(applied.length === 0 ? 'The schema is up to date.\n' : `Applied: ${applied.join(', ')}\n`)
}
