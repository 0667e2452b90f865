import { explainCode, type CodeMeaning } from '@askonce/core'
import { sqlState, StoreRefusalError } from './errors.ts'

/** Which limit the server counted to, by the function of its source that refused: that name is never translated. */
const limits: Readonly<Record<string, CodeMeaning>> = {
  InitializeSessionUserId: {
    meaning: 'too many connections: the limit of the role is reached',
    todo: 'Raise it (alter role … connection limit …), or lower ASKONCE_DATABASE_POOL.',
  },
  CheckMyDatabase: {
    meaning: 'too many connections: the limit of the database is reached',
    todo: 'Raise it (alter database … connection limit …), or lower ASKONCE_DATABASE_POOL.',
  },
  InitPostgres: {
    meaning:
      'too many connections: of max_connections only those are left that are reserved for superusers or other roles',
    todo: 'Raise max_connections, close others, or lower ASKONCE_DATABASE_POOL.',
  },
  InitProcess: {
    meaning: 'too many connections: max_connections of the server is reached',
    todo: 'Raise max_connections, close others, or lower ASKONCE_DATABASE_POOL.',
  },
}

/** What an error of the driver means, in our own words; null where we have none for it. */
export function explainRefusal(error: unknown): StoreRefusalError | null {
  if (error instanceof StoreRefusalError) return error
  const code = sqlState(error)
  const routine = (error as { routine?: unknown } | null)?.routine
  const limit =
    code === '53300' && typeof routine === 'string'
      ? limits[routine === 'ProcArrayAdd' ? 'InitProcess' : routine]
      : undefined
  const found = limit ?? explainCode(code)
  return found === undefined ? null : new StoreRefusalError(`${found.meaning} (${code})`, found.todo, { cause: error })
}

/** A connection that one of the limits refuses, with the limit's name; null: another error. */
export function connectionRefusal(error: unknown): StoreRefusalError | null {
  return sqlState(error) === '53300' ? explainRefusal(error) : null
}
