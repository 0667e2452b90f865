import { parsePostgresUrl, parseRedisUrl, type TlsFiles } from '@askonce/address'
import { filesProblem } from './readers.ts'
import type { Environment } from './variables.ts'

/** What does not go together in the addresses of the database. */
export function databaseProblems({ DATABASE_URL: url, DATABASE_DIRECT_URL: direct }: Partial<Environment>): string[] {
  if (!direct) return []
  if (url === null) {
    return ['DATABASE_DIRECT_URL is set without DATABASE_URL: set DATABASE_URL to the pooler, or to this server alone']
  }
  const pooler = url === undefined ? null : parsePostgresUrl(url.reveal())
  if (pooler === null || 'expected' in pooler || pooler.value.settings.size === 0) return []
  return [
    `DATABASE_URL has options (or PGOPTIONS is set) beside DATABASE_DIRECT_URL: a pooler in transaction mode hands none of them on. Give the settings to the role, as in: alter role … set ${[...pooler.value.settings.keys()][0]} = …`,
  ]
}

/** What does not go together in the variables of Redis. */
export function redisProblems(values: Partial<Environment>): string[] {
  const {
    REDIS_URL: url,
    ASKONCE_REDIS_CA_FILE: ca,
    ASKONCE_REDIS_CERT_FILE: cert,
    ASKONCE_REDIS_KEY_FILE: key,
  } = values
  const names = [
    ...(ca ? ['ASKONCE_REDIS_CA_FILE'] : []),
    ...(cert ? ['ASKONCE_REDIS_CERT_FILE'] : []),
    ...(key ? ['ASKONCE_REDIS_KEY_FILE'] : []),
  ]
  if (names.length === 0 || url === undefined) return []
  const address = url === null ? null : parseRedisUrl(url.reveal())
  if (address === null || 'expected' in address || !address.value.login.tls) {
    return [`${names.join(', ')} set, but REDIS_URL does not ask for TLS: it begins with rediss:// or rediss+ then`]
  }
  if (!cert !== !key) return ['ASKONCE_REDIS_CERT_FILE and ASKONCE_REDIS_KEY_FILE: expected both, or neither']
  const problem = filesProblem(redisFiles(ca ?? null, cert ?? null, key ?? null))
  return problem === null ? [] : [`the TLS files of Redis: expected ${problem}`]
}

/** The files under the names of their variables. */
export function redisFiles(ca: string | null, cert: string | null, key: string | null): TlsFiles {
  return {
    ca: ca === null ? null : { path: ca, from: 'ASKONCE_REDIS_CA_FILE' },
    client:
      cert === null || key === null
        ? null
        : {
            cert: { path: cert, from: 'ASKONCE_REDIS_CERT_FILE' },
            key: { path: key, from: 'ASKONCE_REDIS_KEY_FILE' },
          },
  }
}
