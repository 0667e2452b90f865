/** What went wrong, for exit codes and tests; people read the message. */
export type EmbeddedErrorCode =
  | 'already_running'
  | 'disk_full'
  | 'no_permission'
  | 'not_a_cluster'
  | 'read_only'
  | 'start_failed'
  | 'unsupported_platform'
  | 'wrong_password'
  | 'wrong_version'

/** The only error this package throws on purpose. The message names what failed, where, and what to do. */
export class EmbeddedPostgresError extends Error {
  readonly code: EmbeddedErrorCode

  constructor(code: EmbeddedErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'EmbeddedPostgresError'
    this.code = code
  }
}

const elsewhere = 'choose another folder with ASKONCE_DATA_DIR, or set DATABASE_URL to use your own PostgreSQL'

/** Why, and what to do, for the codes that mean the same wherever they come from. */
function advice(code: EmbeddedErrorCode): string {
  switch (code) {
    case 'disk_full':
      return 'the disk is full. Free some space and start again; nothing committed is lost'
    case 'read_only':
      return `the file system is read-only. Make it writable, or ${elsewhere}`
    case 'no_permission':
      return `permission denied. Start as the user that owns it, or ${elsewhere}`
    default:
      return `PostgreSQL ended. If its output below does not help: ${elsewhere}`
  }
}

// System errors, and the SQLSTATE for the same.
const codeOfErrno: Record<string, EmbeddedErrorCode> = {
  '53100': 'disk_full',
  ENOSPC: 'disk_full',
  EDQUOT: 'disk_full',
  EROFS: 'read_only',
  EACCES: 'no_permission',
  EPERM: 'no_permission',
}

/** `ENOENT` and the like of a thrown value, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/**
 * Makes an error of the file system readable. `what` is an action ("writing", "creating"), `path` its object.
 * An EmbeddedPostgresError passes unchanged, so that it can wrap whole steps.
 */
export function fileError(error: unknown, what: string, path: string): EmbeddedPostgresError {
  if (error instanceof EmbeddedPostgresError) return error
  const code = codeOfErrno[errnoOf(error) ?? '']
  if (code) return new EmbeddedPostgresError(code, `${what} ${path}: ${advice(code)}`, error)
  if (['EEXIST', 'ENOTDIR'].includes(errnoOf(error) ?? '')) {
    return new EmbeddedPostgresError(
      'start_failed',
      `${what} ${path}: a file is in the way. Remove it, or ${elsewhere}`,
      error,
    )
  }
  const text = error instanceof Error ? error.message : String(error)
  return new EmbeddedPostgresError('start_failed', `${what} ${path}: ${text}`, error)
}

/** Makes the output of a failed `initdb` or `postgres` readable: the reason when we know it, and always the output's end. */
export function outputError(output: string, what: string, path: string): EmbeddedPostgresError {
  const tail = output.trim().split('\n').slice(-12).join('\n')
  const code = /No space left on device|Disk quota exceeded|Check free disk space/.test(output)
    ? 'disk_full'
    : /Read-only file system/.test(output)
      ? 'read_only'
      : /Permission denied|has wrong ownership|has invalid permissions/.test(output)
        ? 'no_permission'
        : 'start_failed'
  return new EmbeddedPostgresError(code, `${what} ${path}: ${advice(code)}. Its last output:\n${tail || '(none)'}`)
}
