import type { Tenant } from '@askonce/store'
import { type Command, Option } from 'commander'
import { withDatabase } from '../database.ts'
import { CliError, exitCodes } from '../errors.ts'
import { relative } from '../format.ts'
import { examples } from '../options.ts'
import { table } from '../table.ts'
import { print, printJson, remark } from '../terminal.ts'

/** `askonce tenants`: in the database itself, as `askonce keys`, which makes them. */
export function addTenants(program: Command): void {
  const tenants = program
    .command('tenants')
    .summary('list tenants and set what holds for their requests')
    .description(
      'Tenants, directly in the database: DATABASE_URL, or the embedded one while its server runs. A new one is made by naming it in keys create.',
    )
    .addHelpText('after', examples(['askonce tenants list', 'askonce tenants set research --derive-keys on']))
  tenants
    .command('list')
    .description('Lists every tenant, by name.')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce tenants list --json']))
    .action(list)
  tenants
    .command('set')
    .description('Changes a tenant. Servers notice within seconds.')
    .argument('<tenant>', 'its name')
    .addOption(
      new Option(
        '--derive-keys <on|off>',
        'whether SDK requests without a key get one made from what they ask, so that equal requests share one answer',
      )
        .choices(['on', 'off'])
        .makeOptionMandatory(),
    )
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce tenants set research --derive-keys on']))
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
        { title: 'CREATED', value: ({ createdAt }) => relative(createdAt.toISOString()) },
      ],
      tenants,
    ),
  )
}

async function set(name: string, { deriveKeys, json }: { deriveKeys: 'on' | 'off'; json?: boolean }): Promise<void> {
  const tenant = await withDatabase(async ({ db }) =>
    (await import('@askonce/store')).setDeriveKeys(db, name, deriveKeys === 'on'),
  )
  if (tenant === null) {
    throw new CliError(exitCodes.failed, `there is no tenant ${name}`, 'askonce tenants list shows them.')
  }
  if (json) return printJson(shown(tenant))
  const what = tenant.deriveKeys ? 'get one made from what they ask' : 'are refused'
  print(`${tenant.id}: SDK requests without a key ${what}`)
}

function shown({ id, deriveKeys, createdAt }: Tenant): object {
  return { id, derive_keys: deriveKeys, created_at: createdAt }
}
