import { readFileSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** The server asks for a password, and there is none. */
export class NoPasswordError extends Error {
  override readonly name = 'NoPasswordError'
}

interface Wanted {
  host: string
  port: number
  database: string
  user: string
}

/**
 * The password that `~/.pgpass` has, as libpq reads it: the first line that fits, unless others than its owner may read the file.
 *
 * @throws NoPasswordError that says what to do.
 */
export function passwordOfFile({ host, port, database, user }: Wanted): string {
  const path = join(homedir(), '.pgpass')
  const asked = 'PostgreSQL asks for a password, and DATABASE_URL has none'
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) {
    throw new NoPasswordError(`${asked}, nor PGPASSWORD or ${path}`)
  }
  if (process.platform !== 'win32' && (statSync(path).mode & 0o077) !== 0) {
    throw new NoPasswordError(`${asked}; ${path} is not read, because others may read it too: chmod 600 ${path}`)
  }
  const wanted = [host.startsWith('/') ? 'localhost' : host, String(port), database, user]
  for (const line of linesOf(path)) {
    const fields = line.match(/(?:\\.|[^:\\])*(?::|$)/g)?.map((field) => field.replace(/:$/, ''))
    const [, , , , password] = fields ?? []
    const fits = wanted.every((value, index) => fields?.[index] === '*' || unescape(fields?.[index] ?? '') === value)
    if (!line.startsWith('#') && fits && password !== undefined && password !== '') return unescape(password)
  }
  throw new NoPasswordError(`${asked}, and no line of ${path} is for it`)
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split(/\r?\n/)
  } catch {
    return []
  }
}

function unescape(field: string): string {
  return field.replaceAll(/\\(.)/g, '$1')
}
