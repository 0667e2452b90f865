/** JSON whose members are looked at one by one. */
export type JsonObject = Record<string, unknown>

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The member when it is a string that is not empty; else null. */
export function stringMember(object: JsonObject, name: string): string | null {
  const value = object[name]
  return typeof value === 'string' && value !== '' ? value : null
}

/**
 * The JSON value of a body, or undefined when it is none. Lenient where refusing would throw a paid answer away:
 * a byte order mark is skipped and broken UTF-8 is read as replacement characters; the stored bytes stay as they came.
 */
export function parseBody(body: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(body)) as unknown
  } catch {
    return undefined
  }
}

/** As JSON.stringify; null for what nests too deep to be written, although it could be read. */
export function textOf(value: unknown): string | null {
  try {
    return JSON.stringify(value) ?? null
  } catch {
    return null
  }
}
