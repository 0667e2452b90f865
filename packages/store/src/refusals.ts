import { sqlState, StoreRefusalError } from './errors.ts'

interface Words {
  /** What it is. */
  what: string
  /** What to do about it. */
  todo: string
}

/** What Postgres says by a code, in words of ours: its own may be in any language, and hold what nobody should read. */
const words: Readonly<Record<string, Words>> = {
  '25006': {
    what: 'the sessions are read-only: the server is a standby, or default_transaction_read_only is on',
    todo: 'askonce doctor says which of the two, and what to do.',
  },
  '28000': {
    what: 'the login is not allowed',
    todo: 'Does the role exist, may it log in, and does pg_hba.conf let it in from this address, with TLS or without?',
  },
  '28P01': {
    what: 'user or password is wrong',
    todo: 'Correct them in DATABASE_URL, and in DATABASE_DIRECT_URL if it is set; what an address cannot hold as it is (/ # @ : %) is percent-encoded.',
  },
  '3D000': { what: 'the database does not exist', todo: 'Create it, or correct its name in DATABASE_URL.' },
  '42501': { what: 'the role lacks a right that it needs', todo: 'Grant what the role needs: docs/operations.md.' },
  '53100': {
    what: 'the disk of PostgreSQL is full',
    todo: 'Make room on it, or enlarge it. Everything goes on by itself then; askonce sweep frees space only inside of the database.',
  },
  '53200': {
    what: 'PostgreSQL is out of memory',
    todo: 'Give it more, or lower shared_buffers, work_mem or max_connections.',
  },
  '53300': {
    what: 'too many connections',
    todo: 'Close others, raise max_connections, or lower ASKONCE_DATABASE_POOL.',
  },
  '57P01': { what: 'PostgreSQL is being shut down', todo: 'Start it again; everything reconnects by itself.' },
  '57P02': { what: 'PostgreSQL restarts after a crash', todo: 'Wait; its log says why it crashed.' },
  '57P03': { what: 'PostgreSQL is starting up or shutting down', todo: 'Wait; its log says what takes so long.' },
  '58030': { what: 'PostgreSQL cannot read or write its disk', todo: 'Look at its log and at the disk.' },
}

/** Which limit the server counted to, by the function of its source that refused: that name is never translated. */
const limits: Readonly<Record<string, Words>> = {
  InitializeSessionUserId: {
    what: 'too many connections: the limit of the role is reached',
    todo: 'Raise it (alter role … connection limit …), or lower ASKONCE_DATABASE_POOL.',
  },
  CheckMyDatabase: {
    what: 'too many connections: the limit of the database is reached',
    todo: 'Raise it (alter database … connection limit …), or lower ASKONCE_DATABASE_POOL.',
  },
  InitPostgres: {
    what: 'too many connections: of max_connections only those are left that are reserved for superusers or other roles',
    todo: 'Raise max_connections, close others, or lower ASKONCE_DATABASE_POOL.',
  },
  InitProcess: {
    what: 'too many connections: max_connections of the server is reached',
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
  const found = limit ?? words[code]
  return found === undefined ? null : new StoreRefusalError(`${found.what} (${code})`, found.todo, { cause: error })
}

/** A connection that one of the limits refuses, with the limit's name; null: another error. */
export function connectionRefusal(error: unknown): StoreRefusalError | null {
  return sqlState(error) === '53300' ? explainRefusal(error) : null
}
