import { InvalidArgumentError } from 'commander'

/** A parser of whole numbers for an option; commander names the option in the error. */
export function integer(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(
      `Expected a whole number ${max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`}.`,
    )
  }
}

const units = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

/** A parser of durations such as `90s`, `15m`, `12h` or `7d`; in milliseconds. */
export function duration(text: string): number {
  const [, amount, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? []
  if (amount === undefined) throw new InvalidArgumentError('Expected a duration such as 90s, 15m, 12h or 7d.')
  return Number(amount) * units[unit as keyof typeof units]
}

/** A parser of a span in seconds: a plain number of them, or a duration such as `12h`. At least one second. */
export function period(max: number): (text: string) => number {
  return (text) => {
    const seconds = /^\d{1,15}$/.test(text) ? Number(text) : Math.floor(duration(text) / 1000)
    if (seconds >= 1 && seconds <= max) return seconds
    throw new InvalidArgumentError(`Expected 1 to ${max} seconds, or a duration such as 90s, 15m, 12h or 7d.`)
  }
}

/** A parser of US dollars: `5`, `0.25`, `$5`. */
export function dollarAmount(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\$?\d{1,12}(?:\.\d{1,10})?$/.test(text) ? Number(text.replace('$', '')) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`Expected US dollars from ${min} to ${max}, such as 5 or 0.25.`)
  }
}

/** A parser that also takes a word of its own. */
export function orWord<const W extends string, T>(word: W, parse: (text: string) => T): (text: string) => T | W {
  return (text) => (text === word ? word : parse(text))
}

/** A parser of one of these words. */
export function oneOf<const T extends string>(words: readonly T[]): (text: string) => T {
  return (text) => {
    const word = words.find((one) => one === text)
    if (word !== undefined) return word
    throw new InvalidArgumentError(`Allowed choices are ${words.join(', ')}.`)
  }
}

/** The longest time-out of a call, and the longest time that an answer may be kept, in seconds; a server may allow less. */
export const maxTimeoutSeconds = 86_400
export const maxTtlSeconds = 2_147_483_647

/** Collects `name=value` of a repeatable option. */
export function pair(text: string, before: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf('=')
  if (at < 1) throw new InvalidArgumentError('Expected NAME=VALUE.')
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) }
}

/** Collects the values of a repeatable option. */
export function collect(text: string, before: string[] = []): string[] {
  return [...before, text]
}

/** Help text below a command's options. */
export function examples(lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}\n`
}
