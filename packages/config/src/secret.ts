import { inspect } from 'node:util'

/**
 * A value that must not be printed. `util.inspect`, `JSON.stringify`, template strings and pino all see `shown`
 * (`[redacted]` unless given); only `reveal()` returns the value. It does not guard against a heap dump or against
 * printing what `reveal()` returned.
 */
export class Secret {
  readonly #value: string
  readonly #shown: string

  constructor(value: string, shown = '[redacted]') {
    this.#value = value
    this.#shown = shown
    Object.freeze(this)
  }

  reveal(): string {
    return this.#value
  }

  toString(): string {
    return this.#shown
  }

  toJSON(): string {
    return this.#shown
  }

  [inspect.custom](): string {
    return this.#shown
  }
}
