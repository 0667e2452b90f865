/** A member of a JSON object: its name and the text of its value exactly as it stands in the document. */
export interface RawMember {
  name: string
  text: string
}

const space = /[ \t\n\r]*/y
const scalar = /[^,\]}\s]+/y
const plain = /[^"\\]*/y
const untilNotable = /[^"{}[\]]*/y

/**
 * The members of a JSON object without parsing their values: an answer goes from the server's body to a file with its
 * digits and escapes untouched, which JSON.parse would not keep. Expects text that is known to be JSON (the server's);
 * throws SyntaxError where it meets something else, but does not look into values.
 */
export function rawMembers(text: string): RawMember[] {
  const members: RawMember[] = []
  walk(text, '{', (at) => {
    const nameEnd = stringEnd(text, at)
    const colon = skip(space, text, nameEnd)
    if (text[colon] !== ':') throw new SyntaxError('expected a colon')
    const start = skip(space, text, colon + 1)
    const end = valueEnd(text, start)
    members.push({ name: JSON.parse(text.slice(at, nameEnd)) as string, text: text.slice(start, end) })
    return end
  })
  return members
}

/** The elements of a JSON array, each as its text. */
export function rawElements(text: string): string[] {
  const elements: string[] = []
  walk(text, '[', (at) => {
    const end = valueEnd(text, at)
    elements.push(text.slice(at, end))
    return end
  })
  return elements
}

/**
 * The same JSON on one line. A provider that pretty-prints would break a JSONL file, so line ends and indentation go;
 * every other byte stays. Text without line ends is returned as it is.
 */
export function onOneLine(text: string): string {
  if (!/[\n\r]/.test(text)) return text
  // String by string, not by one pattern: a pattern that spans a string of megabytes overflows the engine's stack.
  let result = ''
  for (let at = 0; ;) {
    const quote = text.indexOf('"', at)
    const between = text.slice(at, quote === -1 ? text.length : quote)
    result += between.replaceAll(/[ \t\n\r]+/g, '')
    if (quote === -1) return result
    at = stringEnd(text, quote)
    result += text.slice(quote, at)
  }
}

/** Calls `entry` with the place of each entry of the container; it returns where that entry ends. */
function walk(text: string, open: '{' | '[', entry: (at: number) => number): void {
  const close = open === '{' ? '}' : ']'
  let at = skip(space, text, 0)
  if (text[at] !== open) throw new SyntaxError(`expected ${open}`)
  at = skip(space, text, at + 1)
  if (text[at] === close) return
  for (;;) {
    at = skip(space, text, entry(at))
    if (text[at] === close) return
    if (text[at] !== ',') throw new SyntaxError(`expected a comma or ${close}`)
    at = skip(space, text, at + 1)
  }
}

function skip(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at
  return pattern.test(text) ? pattern.lastIndex : at
}

function stringEnd(text: string, start: number): number {
  if (text[start] !== '"') throw new SyntaxError('expected a string')
  for (let at = skip(plain, text, start + 1); at < text.length; at = skip(plain, text, at)) {
    if (text[at] === '"') return at + 1
    at += 2
  }
  throw new SyntaxError('unterminated string')
}

function valueEnd(text: string, start: number): number {
  const first = text[start]
  if (first === '"') return stringEnd(text, start)
  if (first !== '{' && first !== '[') {
    const end = skip(scalar, text, start)
    if (end === start) throw new SyntaxError('expected a value')
    return end
  }
  let depth = 0
  for (let at = start; at < text.length; at = skip(untilNotable, text, at)) {
    const character = text[at]
    if (character === '"') {
      at = stringEnd(text, at)
      continue
    }
    depth += character === '{' || character === '[' ? 1 : -1
    at += 1
    if (depth === 0) return at
  }
  throw new SyntaxError('unterminated value')
}
