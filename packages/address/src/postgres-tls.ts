import type { Parsed } from './grammar.ts'
import type { NamedFile, TlsFiles } from './tls-files.ts'

/** A connection with TLS, by libpq's meaning. */
export interface PostgresTls {
  /** `require` encrypts and verifies nothing; `verify-ca` wants a certificate of the authority; `verify-full` one for that host, too. */
  readonly mode: 'require' | 'verify-ca' | 'verify-full'
  readonly files: TlsFiles
  /** `direct` starts with TLS at once, as PostgreSQL 17 and later understand. */
  readonly negotiation: 'postgres' | 'direct'
  /** Whether the password is tied to the server's certificate, if the server can. */
  readonly channelBinding: boolean
}

const modes =
  'sslmode=disable, require (encrypted, the server is not verified), verify-ca or verify-full; allow and prefer would fall back to a connection without encryption'
const unbound =
  'sslmode=verify-full where channel_binding=require is asked for: only a verified server is certain to be the one that gets the password'
const beside =
  'sslmode=verify-full beside sslrootcert, sslcert, sslkey, sslnegotiation=direct or channel_binding=require'

/** The TLS of an address; null: not encrypted. A socket of this machine never is, whatever the address says: as with libpq. */
export function parsePostgresTls(parameters: ReadonlyMap<string, string>, host: string): Parsed<PostgresTls | null> {
  const given = readMode(parameters)
  if ('expected' in given) return given
  const root = parameters.get('sslrootcert')
  const client = readClient(parameters)
  if ('expected' in client) return client
  const negotiation = oneOf(parameters.get('sslnegotiation'), ['postgres', 'direct'])
  const channelBinding = oneOf(parameters.get('channel_binding'), ['disable', 'prefer', 'require'])
  if (negotiation === undefined) return { expected: 'sslnegotiation=postgres or direct' }
  if (channelBinding === undefined) return { expected: 'channel_binding=disable, prefer or require' }
  if (given.value === 'disable') {
    // That an address asks for a verified server and says nothing of encryption is in doubt: it is not sent in the clear.
    const wanted = root ?? client.value ?? (negotiation === 'direct' || channelBinding === 'require' ? true : null)
    return wanted === null || parameters.get('sslmode') === 'disable' ? { value: null } : { expected: beside }
  }
  const system = root === 'system'
  if (system && given.value !== 'verify-full') return { expected: 'sslmode=verify-full beside sslrootcert=system' }
  if (given.value === 'verify-ca' && root === undefined)
    return { expected: 'sslrootcert=/path/to/ca.pem beside sslmode=verify-ca: public authorities sign for anybody' }
  if (channelBinding === 'require' && given.value === 'require' && root === undefined) return { expected: unbound }
  if (host.startsWith('/')) return { value: null }
  const ca = root === undefined || system ? null : file(root, 'sslrootcert')
  return {
    value: {
      mode: given.value === 'require' && ca !== null ? 'verify-ca' : given.value,
      files: { ca, client: client.value },
      negotiation: negotiation ?? 'postgres',
      channelBinding: channelBinding === 'prefer' || channelBinding === 'require',
    },
  }
}

function readMode(parameters: ReadonlyMap<string, string>): Parsed<'disable' | PostgresTls['mode']> {
  const ssl = parameters.get('ssl')
  // As libpq reads the form that comes from JDBC.
  if (ssl !== undefined && (ssl !== 'true' || parameters.has('sslmode'))) return { expected: `no ssl but ${modes}` }
  const mode = ssl === 'true' ? 'require' : parameters.get('sslmode')
  const known = oneOf(mode, ['disable', 'require', 'verify-ca', 'verify-full'])
  return known === undefined ? { expected: modes } : { value: known ?? 'disable' }
}

function readClient(parameters: ReadonlyMap<string, string>): Parsed<TlsFiles['client']> {
  const cert = parameters.get('sslcert')
  const key = parameters.get('sslkey')
  const passphrase = parameters.get('sslpassword')
  if (!cert !== !key || (passphrase !== undefined && !key)) return { expected: 'sslcert and sslkey together' }
  if (!cert || !key) return { value: null }
  return {
    value: {
      cert: file(cert, 'sslcert'),
      key: file(key, 'sslkey'),
      ...(passphrase === undefined ? {} : { passphrase }),
    },
  }
}

function file(path: string, from: string): NamedFile {
  return { path, from }
}

/** null: not given; undefined: not one of them. */
function oneOf<const T extends string>(given: string | undefined, choices: readonly T[]): T | null | undefined {
  return given === undefined ? null : choices.find((choice) => choice === given)
}
