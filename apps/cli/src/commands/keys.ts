import { tenantName, tenantNameRule } from '@askonce/core'
import type { ApiKey, Scope } from '@askonce/store'
import { type Command, InvalidArgumentError } from 'commander'
import { withDatabase } from '../database.ts'
import { CliError, exitCodes, usageError } from '../errors.ts'
import { relative } from '../format.ts'
import { examples } from '../options.ts'
import { table } from '../table.ts'
import { print, printJson, remark } from '../terminal.ts'

const scopes: readonly Scope[] = ['submit', 'read', 'admin', 'operator']

/** `askonce keys`: in the database itself, because the first key cannot be made with a key. */
export function addKeys(program: Command): void {
  const keys = program
    .command('keys')
    .summary('create, list and revoke API keys')
    .description('API keys, directly in the database: DATABASE_URL, or the embedded one while its server runs.')
    .addHelpText('after', examples(['askonce keys create --name ci --scopes submit,read', 'askonce keys list']))
  keys
    .command('create')
    .description('Makes a key and prints it, once: only its SHA-256 is stored.')
    .option('-t, --tenant <name>', 'whose key it is; a new tenant is made by naming it', 'default')
    .requiredOption('-n, --name <name>', 'what it is for')
    .option(
      '-s, --scopes <list>',
      'comma-separated, of submit, read, admin (of its tenant) and operator (of the server)',
      readScopes,
      ['submit', 'read'] as Scope[],
    )
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['ASKONCE_API_KEY=$(askonce keys create --name nightly --tenant research)']))
    .action(create)
  keys
    .command('list')
    .description('Lists every key, newest first, revoked ones included.')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce keys list --json']))
    .action(list)
  keys
    .command('revoke')
    .description('Revokes a key. Servers notice within seconds.')
    .argument('<id>', 'id of the key, as keys list shows it')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce keys revoke 2f1c0a52-7f0e-4d7e-9d0c-0d6c2a2f9f10']))
    .action(revoke)
}

function readScopes(text: string): Scope[] {
  const asked = text.split(',').map((scope) => scope.trim())
  const known = asked.filter((scope): scope is Scope => scopes.includes(scope as Scope))
  if (known.length === asked.length) return [...new Set(known)]
  throw new InvalidArgumentError(`Expected a comma-separated list of ${scopes.join(', ')}.`)
}

interface CreateOptions {
  tenant: string
  name: string
  scopes: Scope[]
  json?: boolean
}

async function create({ tenant, name, scopes: granted, json }: CreateOptions): Promise<void> {
  if (!tenantName.test(tenant)) throw usageError(`a tenant has ${tenantNameRule}`)
  if (name.length < 1 || name.length > 100) throw usageError('a name has 1 to 100 characters')
  const { newApiKey } = await import('@askonce/api')
  const { key, hint, hash } = newApiKey()
  const made = await withDatabase(async ({ db }) => {
    const { createApiKey } = await import('@askonce/store')
    return createApiKey(db, { tenantId: tenant, name, keyHash: hash, hint, scopes: granted })
  })
  if (json) return printJson({ ...shown(made), key })
  print(key)
  remark(`Key ${made.id} of tenant ${tenant}, for ${granted.join(', ')}. It is not shown again.`)
}

async function list({ json }: { json?: boolean }): Promise<void> {
  const keys = await withDatabase(async ({ db }) => (await import('@askonce/store')).listApiKeys(db))
  if (json) return printJson({ object: 'list', data: keys.map(shown) })
  if (keys.length === 0) return remark('There is no key.')
  print(
    table<ApiKey>(
      [
        { title: 'ID', value: ({ id }) => id },
        { title: 'TENANT', value: ({ tenantId }) => tenantId },
        { title: 'KEY', value: ({ hint }) => `${hint}…` },
        { title: 'SCOPES', value: ({ scopes: granted }) => granted.join(',') },
        { title: 'CREATED', value: ({ createdAt }) => relative(createdAt.toISOString()) },
        { title: 'REVOKED', value: ({ revokedAt }) => relative(revokedAt?.toISOString() ?? null) },
        { title: 'NAME', value: ({ name }) => name, shrinks: true },
      ],
      keys,
    ),
  )
}

async function revoke(id: string, { json }: { json?: boolean }): Promise<void> {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id)) {
    throw usageError(`${id} is not the id of a key`, 'askonce keys list shows the ids.')
  }
  const key = await withDatabase(async ({ db }) => (await import('@askonce/store')).revokeApiKey(db, id))
  if (key === null) throw new CliError(exitCodes.failed, `there is no key ${id}`, 'askonce keys list shows the ids.')
  if (json) printJson(shown(key))
  else print(`${key.id} revoked (${key.name}, tenant ${key.tenantId})`)
}

function shown({ id, tenantId, name, hint, scopes: granted, createdAt, revokedAt }: ApiKey): object {
  return { id, tenant: tenantId, name, hint, scopes: granted, created_at: createdAt, revoked_at: revokedAt }
}
