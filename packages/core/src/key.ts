/** Longest idempotency key in characters. */
export const maxKeyLength = 255

export type ParsedKey =
  | { ok: true; key: string }
  | { ok: false; code: 'idempotency_key_missing' | 'idempotency_key_invalid'; detail: string }

const invalid = (detail: string): ParsedKey => ({ ok: false, code: 'idempotency_key_invalid', detail })

/**
 * Reads an idempotency key from the values of the header, one per header line received.
 * `"abc"` (a quoted string, as the IETF draft writes it) and `abc` are the same key; inside quotes, `\"` and `\\` are unescaped.
 */
export function parseKey(values: readonly string[] | undefined): ParsedKey {
  if (values === undefined || values.length === 0) {
    return {
      ok: false,
      code: 'idempotency_key_missing',
      detail: 'Send an Idempotency-Key header that names this answer.',
    }
  }
  if (values.length > 1) return invalid('Send exactly one Idempotency-Key header.')
  return parseKeyText(values[0] ?? '')
}

/** The same rules for a key that does not come from a header (bulk items, files). */
export function parseKeyText(text: string): ParsedKey {
  const trimmed = trimBlanks(text)
  if (trimmed.length > 2 * maxKeyLength + 2) return tooLong(trimmed.length)
  if (!isPrintableAscii(trimmed)) {
    return invalid('The key may hold printable ASCII characters only (0x20 to 0x7E).')
  }
  const key = trimmed.startsWith('"') ? unquote(trimmed) : trimmed
  if (key === null) return invalid('The key starts with a quote but is not a well-formed quoted string.')
  if (key.length === 0) return invalid('The key is empty.')
  return key.length > maxKeyLength ? tooLong(key.length) : { ok: true, key }
}

function tooLong(length: number): ParsedKey {
  return invalid(`The key has ${length} characters; at most ${maxKeyLength} are allowed.`)
}

/** By hand: a pattern for the blanks at the end looks at every run of blanks from each of its characters. */
function trimBlanks(text: string): string {
  let start = 0
  let end = text.length
  while (start < end && isBlank(text[start])) start += 1
  while (end > start && isBlank(text[end - 1])) end -= 1
  return text.slice(start, end)
}

function isBlank(character: string | undefined): boolean {
  return character === ' ' || character === '\t'
}

function isPrintableAscii(text: string): boolean {
  return /^[\x20-\x7e]*$/.test(text)
}

function unquote(text: string): string | null {
  const match = /^"((?:[^"\\]|\\["\\])*)"$/.exec(text)
  return match?.[1]?.replace(/\\(["\\])/g, '$1') ?? null
}
