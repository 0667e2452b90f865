import type { Config } from '@askonce/config'
import { type Check, ok, problem } from './check.ts'

/** What to do about a schema that is not this program's. */
export async function schemaTodo(error: unknown): Promise<string> {
  const { NewerSchemaError, sqlState } = await import('@askonce/store')
  if (sqlState(error) === '42501') return 'See the check of the grants.'
  return error instanceof NewerSchemaError
    ? 'Upgrade this program. Processes of it that run go on, but cannot be started again.'
    : 'Bring it up to date: askonce migrate'
}

/** Whether the database can hold every text, and whether our role may do to it what the processes do. */
export async function checkGrants(url: string, { redis }: Config): Promise<Check[]> {
  const { encodingText, grantsCommand, lacksText, quoteIdentifier, readEncoding, readMissingGrants } =
    await import('@askonce/store')
  const { database, encoding } = await readEncoding(url)
  const checks =
    encoding === 'UTF8' ? [] : [problem('encoding', encodingText(database, encoding), 'Begin with such a database.')]
  const { role, schema, missing } = await readMissingGrants(url)
  if (redis.url === null) missing.push(...(await (await import('@askonce/queue')).readMissingQueueGrants(url)))
  const name = quoteIdentifier(role)
  if (missing.length === 0) return [...checks, ok('grants', `the role ${name} has what the processes need`)]
  const todo = `As the owner of the tables run what this prints: ${grantsCommand({ role, schema })}`
  return [...checks, problem('grants', `the role ${name} lacks ${lacksText(missing)}`, todo)]
}
