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
 * At most so many values are in a text, or in bytes of UTF-8, and at most so deep do its brackets nest, if it is JSON. It tells what a parser
 * would cost, and jumps from quote to quote: bodies are mostly text.
 */
export function measureJson(json: string | Uint8Array): { values: number; depth: number } {
  const [text, bytes] = typeof json === 'string' ? [json, none] : ['', json]
  let values = 1
  let depth = 0
  let deepest = 0
  for (let at = 0; at < json.length; at += 1) {
    const code = bytes === none ? text.charCodeAt(at) : (bytes[at] as number)
    if (code === quote) {
      at = closingQuote(json, at)
      if (at < 0) break
    } else if (code === comma) values += 1
    else if (isOpen(code)) {
      values += 1
      depth += 1
      if (depth > deepest) deepest = depth
    } else if (isClosed(code)) depth -= 1
  }
  return { values, depth: deepest }
}

const none = new Uint8Array()

/** Where the string that opens at `open` ends; -1: nowhere. */
function closingQuote(json: string | Uint8Array, open: number): number {
  for (let at = nextQuote(json, open + 1); at >= 0; at = nextQuote(json, at + 1)) {
    let slashes = 0
    while (codeAt(json, at - 1 - slashes) === backslash) slashes += 1
    if (slashes % 2 === 0) return at
  }
  return -1
}

function nextQuote(json: string | Uint8Array, from: number): number {
  return typeof json === 'string' ? json.indexOf('"', from) : json.indexOf(quote, from)
}

function codeAt(json: string | Uint8Array, at: number): number | undefined {
  return typeof json === 'string' ? json.charCodeAt(at) : json[at]
}

/** `{` or `[`. */
function isOpen(code: number): boolean {
  return code === 0x7b || code === 0x5b
}

/** `}` or `]`. */
function isClosed(code: number): boolean {
  return code === 0x7d || code === 0x5d
}
