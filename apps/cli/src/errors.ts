/** What the process ends with. Documented in `askonce --help`. */
export const exitCodes = { ok: 0, failed: 1, usage: 2, unreachable: 3, interrupted: 130, brokenPipe: 141 } as const

/** A message for the person at the keyboard: what happened, and what to do about it. */
export class CliError extends Error {
  readonly exitCode: number
  /** What to do; null when the message says it. */
  readonly hint: string | null

  constructor(exitCode: number, message: string, hint: string | null = null) {
    super(message)
    this.exitCode = exitCode
    this.hint = hint
  }
}

/** The program cannot do what was asked. */
export function refusal(message: string, exitCode: number = exitCodes.failed): CliError {
  return new CliError(exitCode, message)
}

/** Wrong usage or bad input. */
export function usageError(message: string, hint: string | null = null): CliError {
  return new CliError(exitCodes.usage, message, hint)
}

/** The server answered, and its answer is no. */
export class ApiError extends CliError {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, detail: string) {
    super(exitCodes.failed, `${detail} (${status} ${code})`, hintFor(code))
    this.status = status
    this.code = code
  }
}

function hintFor(code: string): string | null {
  switch (code) {
    case 'unauthorized':
      return 'Set ASKONCE_API_KEY to a key of this server (npm start prints one; askonce keys create makes more).'
    case 'forbidden':
      return 'This key lacks the scope. askonce keys create --scopes makes one that has it.'
    case 'consent_required':
      return 'If a second charge is acceptable: askonce retry ID --accept-duplicate-charge'
    case 'idempotency_key_reused':
      return 'A key names one request for as long as its answer is kept. Use another key for another question.'
    default:
      return null
  }
}

/** Text of a thrown value; Node puts the reason of a failed connection into `errors` or `cause`. */
export function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0])
  if (!(error instanceof Error)) return String(error)
  return error.message === '' && error.cause !== undefined ? reasonOf(error.cause) : error.message || error.name
}
