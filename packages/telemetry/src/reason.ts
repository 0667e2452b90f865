/** Error classes of ours whose messages hold only our own words. Others' messages may hold a prompt, a row or a password. */
const ownErrors = new Set([
  'OverloadedError',
  'StoreUnavailableError',
  'StoreRefusalError',
  'SessionSettingsError',
  'ReadOnlySettingError',
  'SchemaVersionError',
  'PoolerError',
  'SpoolUnavailableError',
])

/** Deepest chain of causes that is told. */
const maxCauses = 3

/**
 * What may be logged of an error: its class, its code or SQLSTATE, where it was thrown if it has no code (file and line tell
 * more of a bug than its class), and the same of its causes. The message only of our own classes.
 */
export function errorReason(error: unknown): string {
  const parts: string[] = []
  let current: unknown = error
  while (current !== undefined && current !== null && parts.length <= maxCauses) {
    parts.push(describe(current))
    current = current instanceof AggregateError ? current.errors[0] : (current as { cause?: unknown }).cause
  }
  return parts.length === 0 ? String(error) : parts.join(' <- ')
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return `a thrown ${typeof error}`
  const name = /^[\w.]{1,60}$/.test(error.constructor.name) ? error.constructor.name : 'Error'
  if (ownErrors.has(name)) return `${name}: ${error.message}`
  const code = (error as { code?: unknown }).code
  if (typeof code === 'number') return `${name} ${code}`
  if (typeof code === 'string' && /^[\w.-]{1,60}$/.test(code)) return `${name} ${code}`
  const place = placeOf(error)
  return place === '' ? name : `${name} at ${place}`
}

/** File name and line of the first frame; nothing of the message, which the stack repeats. */
function placeOf(error: Error): string {
  const frame = /^ {4}at .*?([\w.-]+\.[cm]?[jt]s:\d+):\d+\)?$/m.exec(error.stack?.slice(-8_000) ?? '')
  return frame?.[1] ?? ''
}
