import { tenantName, tenantNameRule } from '@askonce/core'
import type { Tenant } from '@askonce/store'
import type { Command } from 'commander'
import { withDatabase } from '../database.ts'
import { CliError, exitCodes, usageError } from '../errors.ts'
import { relative } from '../format.ts'
import { examples } from '../options.ts'
import { table } from '../table.ts'
import { settingsOf, withTenantOptions, type GivenSettings } from '../tenant-options.ts'
import { defaultsOf, limitLines, limitsOf, type LimitLine } from '../tenant-text.ts'
import { print, printJson, remark } from '../terminal.ts'

const setExamples = examples([
  'askonce tenants set research --max-running 20 --weight 2 --budget-day 5',
  'askonce tenants set research --max-running none',
  'askonce tenants set default --on-uncertain hold --max-paid-attempts 1 --ttl 30d',
])

interface Output {
  json?: boolean
}

/** `askonce tenants`: in the database itself, as `askonce keys`. */
export function addTenants(program: Command): void {
  const tenants = program
    .command('tenants')
    .summary('make tenants, set their limits and budgets')
    .description(
      'Tenants, directly in the database: DATABASE_URL, or the embedded one while its server runs. Operators do the same over HTTP: /v1/tenants.',
    )
    .addHelpText('after', setExamples)
  tenants
    .command('list')
    .description('Lists every tenant, by name.')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce tenants list --json']))
    .action(list)
  tenants
    .command('get')
    .description('Shows a tenant: its limits, what it uses of them, and which of them it has reached.')
    .argument('<tenant>', 'its name')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce tenants get research']))
    .action(get)
  withTenantOptions(
    tenants
      .command('create')
      .description('Makes a tenant. Its keys are made by: askonce keys create --tenant.')
      .argument('<tenant>', 'its name'),
  )
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce tenants create research --max-running 20 --budget-month 100']))
    .action(create)
  withTenantOptions(
    tenants
      .command('set')
      .description(
        'Sets limits, and what holds for requests that do not say otherwise. It holds within a second. A limit below what runs ends nothing; jobs that exist keep their own settings.',
      )
      .argument('<tenant>', 'its name'),
  )
    .option('--json', 'print JSON')
    .addHelpText('after', setExamples)
    .action(set)
}

async function list({ json }: Output): Promise<void> {
  const tenants = await withDatabase(async ({ db }) => (await import('@askonce/store')).listTenants(db))
  if (json) return printJson({ object: 'list', data: await Promise.all(tenants.map(shown)) })
  if (tenants.length === 0) return remark('There is no tenant.')
  print(
    table<Tenant>(
      [
        { title: 'TENANT', value: ({ id }) => id },
        { title: 'DERIVES KEYS', value: ({ deriveKeys }) => (deriveKeys ? 'on' : 'off') },
        { title: 'LIMITS', value: (tenant) => limitsOf(tenant) || '-' },
        { title: 'DEFAULTS', value: (tenant) => defaultsOf(tenant) || '-' },
        { title: 'CREATED', value: ({ createdAt }) => relative(createdAt.toISOString()) },
      ],
      tenants,
    ),
  )
}

async function get(name: string, { json }: Output): Promise<void> {
  const found = await withDatabase(async ({ db }) => {
    const { readTenant, readTenantUse } = await import('@askonce/store')
    const tenant = await readTenant(db, name)
    return tenant === null ? null : { tenant, use: await readTenantUse(db, name) }
  })
  if (found === null) throw noSuch(name)
  const { tenant, use } = found
  if (json) {
    const { useJson } = await import('@askonce/api')
    return printJson({ ...(await shown(tenant)), use: useJson(use) })
  }
  const lines = limitLines(tenant, use)
  print(
    table<LimitLine>(
      [
        { title: 'LIMIT', value: (line) => line.name },
        { title: 'VALUE', value: ({ limit }) => limit, right: true },
        { title: 'USE', value: (line) => line.use },
        {
          title: '',
          value: ({ isReached }) => (isReached ? 'reached' : ''),
          style: ({ isReached }) => (isReached ? 'yellow' : null),
        },
      ],
      lines,
    ),
  )
  print('')
  tell(tenant)
}

async function create(name: string, { json, ...given }: GivenSettings & Output): Promise<void> {
  if (!tenantName.test(name)) throw usageError(`a tenant has ${tenantNameRule}`)
  const tenant = await withDatabase(async ({ db }) =>
    (await import('@askonce/store')).createTenant(db, name, settingsOf(given)),
  )
  if (tenant === null) {
    throw new CliError(exitCodes.failed, `there is a tenant ${name} already`, 'askonce tenants set changes it.')
  }
  if (json) return printJson(await shown(tenant))
  tell(tenant)
  remark(`Make it a key: askonce keys create --tenant ${name} --name NAME`)
}

async function set(name: string, { json, ...given }: GivenSettings & Output): Promise<void> {
  if (Object.keys(given).length === 0) {
    throw usageError('nothing to set', 'askonce tenants set --help lists what can be set.')
  }
  const tenant = await withDatabase(async ({ db }) =>
    (await import('@askonce/store')).setTenant(db, name, settingsOf(given)),
  )
  if (tenant === null) throw noSuch(name)
  if (json) return printJson(await shown(tenant))
  tell(tenant)
}

function tell(tenant: Tenant): void {
  const what = tenant.deriveKeys ? 'get one made from what they ask' : 'are refused'
  print(`${tenant.id}: ${limitsOf(tenant) || 'no limits'}`)
  print(`${tenant.id}: SDK requests without a key ${what}`)
  print(`${tenant.id}: ${defaultsOf(tenant) || 'what a submission does not say, the server decides'}`)
}

function noSuch(name: string): CliError {
  return new CliError(exitCodes.failed, `there is no tenant ${name}`, 'askonce tenants list shows them.')
}

/** As the API shows it. */
async function shown(tenant: Tenant): Promise<object> {
  return (await import('@askonce/api')).tenantJson(tenant)
}
