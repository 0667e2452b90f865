/** The kind of value that a field of a log line has. */
type FieldKind = 'text' | 'number'

/**
 * Every field that a log line may have besides `level`, `time` and `event`. The list is closed: what is not here is
 * dropped, so a prompt, an answer or a key cannot get into a log by being passed along.
 */
export const logFields = {
  tenant: 'text',
  job_id: 'text',
  attempt: 'number',
  generation: 'number',
  operation: 'text',
  model: 'text',
  provider: 'text',
  state: 'text',
  outcome: 'text',
  error_code: 'text',
  duration_ms: 'number',
  queue_ms: 'number',
  tokens_in: 'number',
  tokens_out: 'number',
  cost_usd: 'number',
  req_id: 'text',
  /** Address that a request came from; behind a proxy that is trusted, what the proxy says. */
  client: 'text',
  role: 'text',
  count: 'number',
  lane: 'text',
  batch: 'text',
  loop: 'text',
  worker: 'text',
  pid: 'number',
  host: 'text',
  address: 'text',
  version: 'text',
  /** Method and route pattern of a request, never its URL: a URL may hold a key. */
  route: 'text',
  status: 'number',
  /** Path of a spool file. */
  file: 'text',
  /** Our own words, or what `errorReason` makes of an error; never the text of a provider or of a database. */
  reason: 'text',
} as const satisfies Record<string, FieldKind>

type FieldName = keyof typeof logFields

export type LogFields = {
  readonly [Name in FieldName]?: ((typeof logFields)[Name] extends 'number' ? number : string) | null | undefined
}

/** Longest text of a field; more is cut, with a mark. */
const maxTextLength = 500

/** The listed fields among the given ones, each only if it has its kind: JavaScript callers and `as` casts meet this. */
export function allowedFields(given: LogFields): LogFields {
  const allowed: Record<string, string | number | null> = {}
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(logFields, name)) continue
    if (value === null) allowed[name] = null
    else if (logFields[name as FieldName] === 'number' && typeof value === 'number') allowed[name] = value
    else if (logFields[name as FieldName] === 'text' && typeof value === 'string') allowed[name] = cut(value)
  }
  return allowed
}

function cut(text: string): string {
  return text.length > maxTextLength ? `${text.slice(0, maxTextLength)}…` : text
}
