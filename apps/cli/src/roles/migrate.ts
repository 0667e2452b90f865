import { databaseUrlOf, queueOf, readConfig } from './environment.ts'
import { openLog } from './log.ts'
import { migrateAll } from './schema.ts'
import { catchSignals, openLastResort } from './signals.ts'

/** Brings the schema up to date, once Postgres answers. */
export async function runMigrate(): Promise<void> {
  const config = readConfig()
  const log = openLog(config.log.level, 'migrate')
  const url = databaseUrlOf(config)
  const queueInPostgres = queueOf(config, url).kind === 'postgres'
  const signals = catchSignals()
  const lastResort = openLastResort(signals, 0, log)
  const applied = await lastResort.during('the migration', migrateAll(url, queueInPostgres, log, signals.first))
  process.stdout.write(applied.length === 0 ? 'The schema is up to date.\n' : `Applied: ${applied.join(', ')}\n`)
}
