import { loadConfig, readRedisPrefix } from '@askonce/config'
import type { Command } from 'commander'
import { InvalidArgumentError } from 'commander'
import { usageError } from '../errors.ts'
import { examples } from '../options.ts'
import { print } from '../terminal.ts'

interface Options {
  role?: string
  migrator?: string
  schema: string
  redis?: boolean
  redisPrefix?: string
}

/** `askonce grants`: offline, so that it can be run where no database can be reached, and read before it is. */
export function addGrants(program: Command): void {
  program
    .command('grants')
    .summary('print the grants that the roles in Postgres and Redis need')
    .description(
      'Prints SQL for psql, and runs nothing. --migrator: what the role of askonce migrate needs, before its first run. --role: what the role ' +
        'of the processes and commands needs, to read and write: after each migration, as the owner of the tables. ' +
        '--redis: the line of Redis that makes the user.',
    )
    .option('-r, --role <name>', 'the role of api, worker, janitor, start, sweep, keys, tenants and doctor', readName)
    .option('-m, --migrator <name>', 'the role of askonce migrate; it owns the tables', readName)
    .option(
      '-s, --schema <name>',
      'where the tables are; another than public becomes the search_path of the roles',
      readName,
      'public',
    )
    .option('--redis', 'instead: what the user --role needs in Redis')
    .option('--redis-prefix <prefix>', 'the prefix of the keys (default: ASKONCE_REDIS_PREFIX)', readPrefix)
    .addHelpText(
      'after',
      examples([
        'askonce grants --migrator owner | psql "$ADMIN_URL"',
        'askonce grants --role app | psql "$OWNER_URL"',
        'askonce grants --migrator owner --schema app | psql "$ADMIN_URL"',
        'askonce grants --role app --redis',
      ]),
    )
    .action(grants)
}

async function grants({ role, migrator, schema, redis = false, redisPrefix: prefix }: Options): Promise<void> {
  if (role === undefined && migrator === undefined) {
    throw usageError('for whom?', 'Name a role: --role for the processes, --migrator for askonce migrate.')
  }
  const queue = await import('@askonce/queue')
  if (redis) {
    if (role === undefined) throw usageError('the migrator needs nothing in Redis', 'Name the user with --role.')
    // As the processes here would have it: another one than theirs would lock them out.
    return print(queue.redisAcl({ user: role, prefix: prefix ?? loadConfig().redis.prefix }))
  }
  const store = await import('@askonce/store')
  if (migrator !== undefined) {
    const name = store.quoteIdentifier(migrator)
    print('-- For askonce migrate, before its first run: as a superuser, or as the owner of the database.')
    print(`-- The role itself: create role ${name} login password '…';`)
    print(store.migratorGrants({ role: migrator, schema }))
    print('-- Only where BullMQ is on Postgres (no REDIS_URL):')
    print(queue.queueMigratorGrants(name))
  }
  if (migrator !== undefined && role !== undefined) print('\n-- Then: askonce migrate. Then:\n')
  if (role !== undefined) {
    const name = store.quoteIdentifier(role)
    print(
      '-- For the processes, after each askonce migrate: first as a superuser, later as a superuser or the owner of the tables.',
    )
    print(`-- The role itself: create role ${name} login password '…';`)
    print(store.roleGrants({ role, schema }))
    print('-- Only where BullMQ is on Postgres (no REDIS_URL):')
    print(queue.queueRoleGrants(name))
  }
}

/** Postgres cuts longer names without a word, and knows no empty one. */
function readName(text: string): string {
  if (text !== '' && Buffer.byteLength(text) <= 63 && !/[\0\r\n]/.test(text)) return text
  throw new InvalidArgumentError('A name has 1 to 63 bytes, on one line.')
}

/** With the braces that keep all keys in one slot of a cluster. */
function readPrefix(text: string): string {
  const read = readRedisPrefix(text)
  if ('value' in read) return read.value
  throw new InvalidArgumentError(`Expected ${read.expected} (without the braces).`)
}
