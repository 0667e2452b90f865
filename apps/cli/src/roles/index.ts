import type { Command } from 'commander'
import { createLog } from '@askonce/telemetry'
import { databaseUrlOf, readConfig } from './environment.ts'
import { migrateAll } from './schema.ts'
import { runSeparate } from './separate.ts'
import { catchSignals } from './signals.ts'
import { runStart } from './start.ts'

/** Adds the commands that are servers: their process is the server itself. */
export function registerRoles(program: Command): void {
  program
    .command('start')
    .description('run everything in one process: API, worker, janitor, and a database unless DATABASE_URL names one')
    .action(() => runStart())
  program
    .command('api')
    .description('run the HTTP API (needs DATABASE_URL; any number side by side)')
    .action(() => runSeparate('api'))
  program
    .command('worker')
    .description('run a worker that calls the providers (needs DATABASE_URL; any number side by side)')
    .action(() => runSeparate('worker'))
  program
    .command('janitor')
    .description('run the loops: dispatch, reconcile, reclaim, sweep (needs DATABASE_URL; one or more)')
    .action(() => runSeparate('janitor'))
  program
    .command('migrate')
    .description('bring the database schema up to date (ours and BullMQ’s); safe to run twice or in parallel')
    .action(async () => {
      const config = readConfig()
      const log = createLog({ level: config.log.level, role: 'migrate' })
      const applied = await migrateAll(databaseUrlOf(config), log, catchSignals().first)
      process.stdout.write(applied.length === 0 ? 'The schema is up to date.\n' : `Applied: ${applied.join(', ')}\n`)
    })
}
