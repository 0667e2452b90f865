import type { Config } from '@askonce/config'
import { reasonOf } from '../errors.ts'
import { count } from '../format.ts'
import { type Check, ok, problem, warn } from './check.ts'

/** The pooler in front of the database, if there is one: reachable, of the same database, and its sessions have what ours would set. */
export async function checkPooler({ database }: Config, directUrl: string): Promise<Check[]> {
  const name = 'pooler'
  if (database.directUrl === null || database.url === null) return []
  const { PoolerError, readPoolerFacts, SessionSettingsError } = await import('@askonce/store')
  try {
    const { missing, remedy } = await readPoolerFacts(database.url.reveal(), directUrl)
    if (missing.length === 0) return [ok(name, `${String(database.url)}, its sessions have the settings they need`)]
    const lacks = missing.map(({ setting, found, wanted }) => `${setting} is ${found} instead of ${wanted}`).join(', ')
    return [warn(name, `${count(missing.length, 'setting')} missing: ${lacks}`, `Run: ${remedy}`)]
  } catch (error) {
    if (error instanceof SessionSettingsError) return [problem(name, error.what, error.todo)]
    if (error instanceof PoolerError) return [problem(name, error.message, 'Until then no process starts.')]
    const detail = `${String(database.url)} does not answer: ${reasonOf(error)}`
    return [problem(name, detail, 'Is it running, and are address, user, password and database in DATABASE_URL right?')]
  }
}
