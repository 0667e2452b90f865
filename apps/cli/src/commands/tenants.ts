import { uncertainPolicies, type OnUncertain } from '@askonce/core'
import type { Tenant } from '@askonce/store'
import type { Command } from 'commander'
import { withDatabase } from '../database.ts'
import { CliError, exitCodes, usageError } from '../errors.ts'
import { relative } from '../format.ts'
import { examples, integer, maxTimeoutSeconds, maxTtlSeconds, oneOf, orWord, period } from '../options.ts'
import { table } from '../table.ts'
import { print, printJson, remark } from '../terminal.ts'

/** What takes a tenant's own value away. */
const byServer = 'default'
type ByServer = typeof byServer
const serverDecides = `; ${byServer}: the server decides`

interface Settings {
  deriveKeys?: 'on' | 'off'
  onUncertain?: OnUncertain | ByServer
  maxAttempts?: number | ByServer
  maxPaidAttempts?: number | ByServer
  ttl?: number | ByServer
  timeout?: number | ByServer
}

const setExamples = examples([
  'askonce tenants set default --on-uncertain hold --max-paid-attempts 1',
  'askonce tenants set research --ttl 30d --timeout 20m',
  'askonce tenants set research --derive-keys on --ttl default',
])

/** `askonce tenants`: in the database itself, as `askonce keys`, which makes them. */
export function addTenants(program: Command): void {
  const tenants = program
    .command('tenants')
    .summary('list tenants and set what holds for their requests')
    .description(
      'Tenants, directly in the database: DATABASE_URL, or the embedded one while its server runs. A new one is made by naming it in keys create.',
    )
    .addHelpText('after', setExamples)
  tenants
    .command('list')
    .description('Lists every tenant, by name.')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce tenants list --json']))
    .action(list)
  tenants
    .command('set')
    .description(
      'Sets what holds for requests of a tenant that do not say otherwise. New jobs have it within a second; jobs that exist stay as they are.',
    )
    .argument('<tenant>', 'its name')
    .option(
      '--derive-keys <on|off>',
      'whether SDK requests without a key get one made from what they ask, so that equal requests share one answer',
      oneOf(['on', 'off']),
    )
    .option(
      '--on-uncertain <policy>',
      `after a call that may have been billed: ${uncertainPolicies.join(', ')}${serverDecides}`,
      orWord(byServer, oneOf([...uncertainPolicies])),
    )
    .option('--max-attempts <n>', `most calls per request to run${serverDecides}`, orWord(byServer, integer(1, 100)))
    .option(
      '--max-paid-attempts <n>',
      `most calls of a job that may have been billed${serverDecides}`,
      orWord(byServer, integer(1, 10)),
    )
    .option(
      '--ttl <time>',
      `how long answers are kept, in seconds or as 12h, 7d${serverDecides}`,
      orWord(byServer, period(maxTtlSeconds)),
    )
    .option(
      '--timeout <time>',
      `how long one call may take, in seconds or as 90s, 15m${serverDecides}`,
      orWord(byServer, period(maxTimeoutSeconds)),
    )
    .option('--json', 'print JSON')
    .addHelpText('after', setExamples)
    .action(set)
}

async function list({ json }: { json?: boolean }): Promise<void> {
  const tenants = await withDatabase(async ({ db }) => (await import('@askonce/store')).listTenants(db))
  if (json) return printJson({ object: 'list', data: tenants.map(shown) })
  if (tenants.length === 0) return remark('There is no tenant.')
  print(
    table<Tenant>(
      [
        { title: 'TENANT', value: ({ id }) => id },
        { title: 'DERIVES KEYS', value: ({ deriveKeys }) => (deriveKeys ? 'on' : 'off') },
        { title: 'DEFAULTS', value: (tenant) => defaultsOf(tenant) || '-' },
        { title: 'CREATED', value: ({ createdAt }) => relative(createdAt.toISOString()) },
      ],
      tenants,
    ),
  )
}

async function set(name: string, { json, ...given }: Settings & { json?: boolean }): Promise<void> {
  if (Object.keys(given).length === 0) {
    throw usageError('nothing to set', 'askonce tenants set --help lists what can be set.')
  }
  const { deriveKeys, onUncertain, maxAttempts, maxPaidAttempts, ttl, timeout } = given
  const changes = {
    deriveKeys: deriveKeys === undefined ? undefined : deriveKeys === 'on',
    onUncertain: valueOf(onUncertain),
    maxAttempts: valueOf(maxAttempts),
    maxPaidAttempts: valueOf(maxPaidAttempts),
    ttlSeconds: valueOf(ttl),
    timeoutSeconds: valueOf(timeout),
  }
  const tenant = await withDatabase(async ({ db }) => (await import('@askonce/store')).setTenant(db, name, changes))
  if (tenant === null) {
    throw new CliError(exitCodes.failed, `there is no tenant ${name}`, 'askonce tenants list shows them.')
  }
  if (json) return printJson(shown(tenant))
  const what = tenant.deriveKeys ? 'get one made from what they ask' : 'are refused'
  print(`${tenant.id}: SDK requests without a key ${what}`)
  print(`${tenant.id}: ${defaultsOf(tenant) || 'what a submission does not say, the server decides'}`)
}

function valueOf<T>(given: T | ByServer | undefined): T | null | undefined {
  return given === byServer ? null : given
}

/** What holds for its submissions, in the words of the options; empty: the server decides everything. */
function defaultsOf({ onUncertain, maxAttempts, maxPaidAttempts, ttlSeconds, timeoutSeconds }: Tenant): string {
  const parts = [
    ['on-uncertain', onUncertain],
    ['max-attempts', maxAttempts],
    ['max-paid-attempts', maxPaidAttempts],
    ['ttl', ttlSeconds === null ? null : `${ttlSeconds}s`],
    ['timeout', timeoutSeconds === null ? null : `${timeoutSeconds}s`],
  ]
  return parts.flatMap(([name, value]) => (value === null ? [] : [`${name} ${value}`])).join(', ')
}

function shown(tenant: Tenant): object {
  return {
    id: tenant.id,
    derive_keys: tenant.deriveKeys,
    on_uncertain: tenant.onUncertain,
    max_attempts: tenant.maxAttempts,
    max_paid_attempts: tenant.maxPaidAttempts,
    ttl_seconds: tenant.ttlSeconds,
    timeout_seconds: tenant.timeoutSeconds,
    created_at: tenant.createdAt,
  }
}
