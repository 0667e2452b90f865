/** A buffer in the process is full: nothing was accepted. */
export class OverloadedError extends Error {}

/** Postgres cannot be reached, or went away with the outcome unknown. */
export class StoreUnavailableError extends Error {}

/** Postgres answers and does not do this process's work. The message is our own words: what it is. */
export class StoreRefusalError extends StoreUnavailableError {
  /** What to do about it. */
  readonly todo: string

  constructor(what: string, todo: string, options?: ErrorOptions) {
    super(what, options)
    this.todo = todo
  }
}

/**
 * A session has not the settings that ours begin with, so it was ended: what is acknowledged in it could be lost, or wait for ever. Its
 * message also says what to do: it has to reach whoever reads a log.
 */
export class SessionSettingsError extends StoreRefusalError {
  /** The message without what to do. */
  readonly what: string

  constructor(what: string, todo: string) {
    super(`${what}. ${todo}`, todo)
    this.what = what
  }
}

/** Somebody has made our sessions read-only: that does not mend itself. */
export class ReadOnlySettingError extends StoreRefusalError {}

/** Postgres let something wait for too long. The message is our own words. */
export class StoreTimeoutError extends Error {}

export function sqlState(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code
  // Without E…: EPIPE is the network's, and no class of SQLSTATE begins so.
  return typeof code === 'string' && /^(?!E)[0-9A-Z]{5}$/.test(code) ? code : ''
}

/** Postgres refuses the row as data: a bad value or a broken constraint. Such a row fails alone. */
export function isDataError(error: unknown): boolean {
  return /^2[23]/.test(sqlState(error))
}

/** Lost a race that is worth running again at once: deadlock, serialization failure, lock timeout. */
export function isContention(error: unknown): boolean {
  return ['40P01', '40001', '55P03'].includes(sqlState(error))
}

/**
 * The server or the network, not the statement: no SQLSTATE at all (a broken socket, a timeout of the driver), class 08, 53
 * and 57 (shutting down, starting up, out of connections or disk), 58 (system errors), XX, and 25006: a server that became a replica.
 * Whether the statement took effect is unknown.
 */
export function isUnavailable(error: unknown): boolean {
  if (error instanceof StoreRefusalError) return true
  const state = sqlState(error)
  return state === '' ? isDriverError(error) : /^(08|53|57|58|XX|25006)/.test(state)
}

function isDriverError(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code = (error as { code?: unknown }).code
  // System errors such as ECONNRESET and EAI_AGAIN; ERR_… are Node's own, for wrong arguments and the like.
  if (typeof code === 'string' && /^E(?!RR_)[A-Z_]+$/.test(code)) return true
  return /connection|timeout|terminat|ended|not queryable/i.test(error.message)
}

/** Postgres ended the statement: it took longer than it may. */
export function isStatementTimeout(error: unknown): boolean {
  return sqlState(error) === '57014'
}

/**
 * Postgres could not do this to this row, and will not another time: neither the server is away, nor did anybody else come first, nor is it
 * the statement (class 42: a privilege or a column that is missing), which would fail for every other row too.
 */
export function isRowFault(error: unknown): boolean {
  const state = sqlState(error)
  return state !== '' && !/^(08|25|40|42|53|55|57P|58)/.test(state)
}

/** Runs a statement again when it lost a race, up to `times`; each wait is a few random milliseconds. */
export async function retryContention<T>(run: () => Promise<T>, times = 5): Promise<T> {
  for (let left = times; ; left -= 1) {
    try {
      return await run()
    } catch (error) {
      if (left <= 0 || !isContention(error)) throw error
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 20))
    }
  }
}
