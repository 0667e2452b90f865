import { userInfo } from 'node:os'
import type { ConnectionOptions } from 'node:tls'
import { passwordOfFile } from './password-file.ts'
import { parsePostgresUrl, type PostgresAddress } from './postgres-address.ts'
import type { PostgresTls } from './postgres-tls.ts'
import { formatOptions } from './session-settings.ts'
import { readTlsFiles } from './tls-files.ts'

/** What `pg` is given of an address. */
export interface PostgresParts {
  host: string
  port: number
  user: string
  database: string
  /** Asked for only when the server does. */
  password: string | (() => string)
  ssl: false | ConnectionOptions
  sslnegotiation: 'postgres' | 'direct'
  enableChannelBinding: boolean
  client_encoding: string
  options?: string
}

/** The parts of an address that {@link parsePostgresUrl} accepts. Throws what was expected of another. */
function postgresAddress(url: string): PostgresAddress {
  const parsed = parsePostgresUrl(url)
  if ('expected' in parsed) throw new Error(`the address of the database is not as needed: expected ${parsed.expected}`)
  return parsed.value
}

/**
 * An address as parts for `pg`, which reads options of its own out of a connection string, and out of the PG* variables for each part that
 * is missing.
 *
 * @param settings of the session. They are sent together with those of the address; null: none is sent, because a pooler would refuse them.
 * @throws TlsFileError when a file that the address names cannot be used.
 */
export function postgresParts(url: string, settings: Readonly<Record<string, string>> | null): PostgresParts {
  const address = postgresAddress(url)
  const user = address.user ?? userInfo().username
  const { host, port, password, database, tls } = address
  const wanted = { host, port, user, database: database ?? user }
  return {
    ...wanted,
    // pg would read the file too, and warn of it in each process.
    password: password ?? (() => passwordOfFile(wanted)),
    ssl: tls === null ? false : tlsOptions(tls),
    sslnegotiation: tls?.negotiation ?? 'postgres',
    enableChannelBinding: tls?.channelBinding ?? false,
    client_encoding: 'UTF8',
    ...(settings === null ? {} : { options: formatOptions([...address.settings, ...Object.entries(settings)]) }),
  }
}

/** What an address says of where tables are and who works on them: a session without it would work on other ones, and nobody would notice. */
export function placeSettings(url: string): Record<string, string> {
  const { settings } = postgresAddress(url)
  return Object.fromEntries([...settings].filter(([name]) => name === 'search_path' || name === 'role'))
}

function tlsOptions({ mode, files }: PostgresTls): ConnectionOptions {
  const options: ConnectionOptions = readTlsFiles(files)
  if (mode === 'require') options.rejectUnauthorized = false
  if (mode === 'verify-ca') options.checkServerIdentity = () => undefined
  return options
}
