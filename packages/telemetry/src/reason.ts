import { explainCode } from '@askonce/core'

/** Error classes of ours whose messages hold only our own words. Others' messages may hold a prompt, a row or a password. */
const ownErrors = new Set([
  'OverloadedError',
  'StoreUnavailableError',
  'StoreRefusalError',
  'StoreTimeoutError',
  'SessionSettingsError',
  'ReadOnlySettingError',
  'SchemaVersionError',
  'PoolerError',
  'SpoolUnavailableError',
  'QueueUnavailableError',
  'QueueTimeoutError',
  'QueueLoadingError',
  'QueueSharedError',
])

/** Deepest chain of causes that is told. */
const maxCauses = 3

/**
 * What may be logged of an error: its class, its code (a system error's, an SQLSTATE, the first word of Redis' refusal), where it was
 * thrown if it has no code (file and line tell more of a bug than its class), and the same of its causes. Then, if the innermost code
 * is in our table, what it means. The message only of our own classes.
 */
export function errorReason(error: unknown): string {
  const chain = chainOf(error)
  if (chain.length === 0) return String(error)
  const told = chain.map(describe).join(' <- ')
  const meaning = explainCode(innermostCode(error) ?? '')?.meaning
  return meaning === undefined || told.includes(meaning) ? told : `${told} (${meaning})`
}

/** The code of the innermost cause that has one; {@link explainCode} may know it. */
export function innermostCode(error: unknown): string | undefined {
  return chainOf(error)
    .map(codeOf)
    .findLast((code) => code !== undefined)
}

/** The error and its causes, as far as they are told. */
function chainOf(error: unknown): unknown[] {
  const chain: unknown[] = []
  let current = error
  while (current !== undefined && current !== null && chain.length <= maxCauses) {
    chain.push(current)
    current = current instanceof AggregateError ? current.errors[0] : (current as { cause?: unknown }).cause
  }
  return chain
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return `a thrown ${typeof error}`
  const name = /^[\w.]{1,60}$/.test(error.constructor.name) ? error.constructor.name : 'Error'
  if (ownErrors.has(name)) return `${name}: ${error.message}`
  const code = codeOf(error)
  if (code !== undefined) return `${name} ${code}`
  const place = placeOf(error)
  return place === '' ? name : `${name} at ${place}`
}

/** A code is a name, never a text: it cannot hold a secret. */
function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  const { code } = error as { code?: unknown }
  if (typeof code === 'number') return String(code)
  if (typeof code === 'string' && /^[\w.-]{1,60}$/.test(code)) return code
  // Redis has no field for it: a refusal begins with a word in capitals (`NOPERM User …`), and what follows may name keys and users.
  return error.constructor.name === 'ReplyError' ? /^[A-Z]{2,20}(?= |$)/.exec(error.message)?.[0] : undefined
}

/** File name and line of the first frame; nothing of the message, which the stack repeats. */
function placeOf(error: Error): string {
  const frame = /^ {4}at .*?([\w.-]+\.[cm]?[jt]s:\d+):\d+\)?$/m.exec(error.stack?.slice(-8_000) ?? '')
  return frame?.[1] ?? ''
}
