/** Deepest nesting of arrays and objects that is accepted. */
export const maxJsonDepth = 128

/**
 * Most values in one document: an embedding of 300,000 tokens has that many numbers, and 32 MB can hold sixteen million, which take gigabytes
 * once they are parsed.
 */
export const maxJsonValues = 1_000_000

const quote = 0x22
const backslash = 0x5c
const comma = 0x2c

/**
 * At most so many values are in a text, or in bytes of UTF-8, and at most so deep do its brackets nest, if it is JSON. One look at each character:
 * it tells what a parser would cost.
 */
export function measureJson(text: string | Uint8Array): { values: number; depth: number } {
  const codeAt =
    typeof text === 'string' ? (at: number) => text.charCodeAt(at) : (at: number): number => text[at] as number
  let values = 1
  let depth = 0
  let deepest = 0
  let inString = false
  for (let at = 0; at < text.length; at += 1) {
    const code = codeAt(at)
    if (inString) {
      if (code === backslash) at += 1
      else if (code === quote) inString = false
    } else if (code === quote) inString = true
    else if (code === comma) values += 1
    else if (isOpen(code)) {
      values += 1
      depth += 1
      if (depth > deepest) deepest = depth
    } else if (isClosed(code)) depth -= 1
  }
  return { values, depth: deepest }
}

/** `{` or `[`. */
function isOpen(code: number): boolean {
  return code === 0x7b || code === 0x5b
}

/** `}` or `]`. */
function isClosed(code: number): boolean {
  return code === 0x7d || code === 0x5d
}
