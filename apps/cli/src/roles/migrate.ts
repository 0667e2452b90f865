import { databaseUrlOf, queueOf, readConfig } from './environment.ts'
import { openLog } from './log.ts'
import { migrateAll } from './schema.ts'
import { catchSignals } from './signals.ts'

/** Brings the schema up to date, once Postgres answers. */
export async function runMigrate(): Promise<void> {
  const config = readConfig()
  const log = openLog(config.log.level, 'migrate')
  const url = databaseUrlOf(config)
  const queueInPostgres = queueOf(config, url).kind === 'postgres'
  const applied = await migrateAll(url, queueInPostgres, log, catchSignals().first)
  process.stdout.write(applied.length === 0 ? 'The schema is up to date.\n' : `Applied: ${applied.join(', ')}\n`)
}
