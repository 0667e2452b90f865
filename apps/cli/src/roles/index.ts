import type { Command } from 'commander'

/** Adds the commands that are servers: their process is the server itself. Their code is loaded when they run. */
export function registerRoles(program: Command): void {
  program
    .command('start')
    .description('run everything in one process: API, worker, janitor, and a database unless DATABASE_URL names one')
    .action(async () => (await import('./start.ts')).runStart())
  program
    .command('api')
    .description('run the HTTP API (needs DATABASE_URL; any number side by side)')
    .action(async () => (await import('./separate.ts')).runSeparate('api'))
  program
    .command('worker')
    .description('run a worker that calls the providers (needs DATABASE_URL; any number side by side)')
    .action(async () => (await import('./separate.ts')).runSeparate('worker'))
  program
    .command('janitor')
    .description('run the loops: reclaim, deadlines, batches, sweep (needs DATABASE_URL; one or more)')
    .action(async () => (await import('./separate.ts')).runSeparate('janitor'))
  program
    .command('migrate')
    .description('bring the database schema up to date (ours and BullMQ’s); safe to run twice or in parallel')
    .action(async () => (await import('./migrate.ts')).runMigrate())
}
