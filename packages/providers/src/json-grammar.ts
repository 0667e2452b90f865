/** Between tokens: what may come next. */
const places = ['start', 'mark1', 'mark2', 'value', 'valueOrEnd', 'name', 'nameOrEnd', 'colon', 'behind'] as const
/** Inside of a token. */
const texts = ['text', 'textEscape', 'text4', 'text3', 'text2', 'text1'] as const
const named = ['named', 'namedEscape', 'named4', 'named3', 'named2', 'named1'] as const
const numeric = ['minus', 'zero', 'digits', 'point', 'fraction', 'e', 'eSign', 'exponent'] as const
const words = ['t', 'tr', 'tru', 'f', 'fa', 'fal', 'fals', 'n', 'nu', 'nul'] as const
/** No places, but what is to be done: what follows depends on the brackets that are open. */
const turns = ['openBrace', 'openBracket', 'closeBrace', 'closeBracket', 'comma', 'broken'] as const

const states = [...places, ...texts, ...named, ...numeric, ...words, ...turns] as const
type State = (typeof states)[number]

const is = (state: State): number => states.indexOf(state)
const [value, valueOrEnd, name, nameOrEnd, behind] = [
  is('value'),
  is('valueOrEnd'),
  is('name'),
  is('nameOrEnd'),
  is('behind'),
]
const [openBrace, openBracket, closeBrace, closeBracket, comma, broken] = [
  is('openBrace'),
  is('openBracket'),
  is('closeBrace'),
  is('closeBracket'),
  is('comma'),
  is('broken'),
]

/** For each state and byte what follows. */
const table = new Uint8Array(states.length * 256).fill(broken)

function after(from: readonly State[], bytes: string | readonly number[], to: State): void {
  const codes = typeof bytes === 'string' ? Buffer.from(bytes) : bytes
  for (const state of from) for (const code of codes) table[is(state) * 256 + code] = is(to)
}

const range = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index)
const values = ['start', 'value', 'valueOrEnd'] as const
const numbers = ['zero', 'digits', 'fraction', 'exponent'] as const

after(['start'], [0xef], 'mark1')
after(['mark1'], [0xbb], 'mark2')
after(['mark2'], [0xbf], 'value')
for (const state of ['value', 'valueOrEnd', 'name', 'nameOrEnd', 'colon', 'behind'] as const)
  after([state], ' \t\n\r', state)
after(['start'], ' \t\n\r', 'value')
after(values, '{', 'openBrace')
after(values, '[', 'openBracket')
after(['valueOrEnd'], ']', 'closeBracket')
after(['nameOrEnd'], '}', 'closeBrace')
after(['colon'], ':', 'value')
after(numbers, ' \t\n\r', 'behind')
after(['behind', ...numbers], ',', 'comma')
after(['behind', ...numbers], '}', 'closeBrace')
after(['behind', ...numbers], ']', 'closeBracket')

after(values, '"', 'text')
after(['name', 'nameOrEnd'], '"', 'named')
for (const [inside, end] of [
  ['text', 'behind'],
  ['named', 'colon'],
] as const) {
  after([inside], range(0x20, 0xff), inside)
  after([inside], '"', end)
  after([inside], '\\', `${inside}Escape`)
  after([`${inside}Escape`], '"\\/bfnrt', inside)
  after([`${inside}Escape`], 'u', `${inside}4`)
  for (const left of [4, 3, 2] as const) after([`${inside}${left}`], hex(), `${inside}${(left - 1) as 3 | 2 | 1}`)
  after([`${inside}1`], hex(), inside)
}

after(values, '-', 'minus')
after([...values, 'minus'], '0', 'zero')
after([...values, 'minus', 'digits'], '123456789', 'digits')
after(['digits'], '0', 'digits')
after(['zero', 'digits'], '.', 'point')
after(['point', 'fraction'], '0123456789', 'fraction')
after(['zero', 'digits', 'fraction'], 'eE', 'e')
after(['e'], '+-', 'eSign')
after(['e', 'eSign', 'exponent'], '0123456789', 'exponent')

for (const word of ['true', 'false', 'null']) {
  after(values, word.slice(0, 1), word.slice(0, 1) as State)
  for (let at = 1; at < word.length; at += 1) {
    after(
      [word.slice(0, at) as State],
      word.slice(at, at + 1),
      at + 1 === word.length ? 'behind' : (word.slice(0, at + 1) as State),
    )
  }
}

function hex(): string {
  return '0123456789abcdefABCDEF'
}

/**
 * Whether bytes are JSON as `JSON.parse` has it, as they come: nothing of them is kept but which brackets are open, so it costs neither
 * the memory nor the uninterrupted time of parsing. Bytes in strings may be no UTF-8; a byte order mark may come first.
 */
export class JsonGrammar {
  #state = is('start')
  /** For each open bracket whether it is a brace. */
  readonly #open: boolean[] = []

  /** Whether what has come is not the beginning of any JSON. */
  get isBroken(): boolean {
    return this.#state === broken
  }

  push(bytes: Buffer): void {
    let state = this.#state
    for (let at = 0; at < bytes.length && state !== broken; at += 1) {
      state = table[state * 256 + (bytes[at] as number)] as number
      if (state >= openBrace) state = this.#turn(state)
    }
    this.#state = state
  }

  #turn(to: number): number {
    const open = this.#open
    switch (to) {
      case openBrace:
      case openBracket:
        open.push(to === openBrace)
        return to === openBrace ? nameOrEnd : valueOrEnd
      case closeBrace:
      case closeBracket:
        return open.pop() === (to === closeBrace) ? behind : broken
      case comma:
        if (open.length === 0) return broken
        return open[open.length - 1] === true ? name : value
      default:
        return broken
    }
  }
}
