import { parseArgs } from 'node:util'

export interface ChaosOptions {
  minutes: number
  seed: number
  form: 'redis' | 'embedded'
  /** New keys a second. */
  rate: number
  /** Paths; null: not written. */
  out: string | null
  report: string | null
}

export const usage = `Usage: npm run chaos -- [options]

Runs the real program in real processes, breaks it on purpose while producers submit, crash and submit again, and compares
their records with the upstream's own count of calls. Ends with code 0 if every promise was kept, and with 1 at the first
one that was not.

  --minutes M      how long faults are injected (default 2); starting, healing and checking come on top, about a minute
  --seed N         decides which faults, in which order, with which lengths (default: one from the clock, printed)
  --form FORM      redis: Postgres and Redis, 2 APIs, 3 workers, 2 janitors (default)
                   embedded: askonce start alone, with its embedded Postgres
  --rate R         new keys a second, of all producers together (default 60; embedded 40)
  --out FILE       write a report as JSON
  --report FILE    write a report as Markdown; a file with the markers <!-- chaos-FORM:begin --> and <!-- chaos-FORM:end -->
                   keeps what stands around them
  --help           this text

Needs Redis and, as root or not, nothing else: it brings its own servers, all of them on 127.0.0.1.
`

/** Throws an error with a message for people when an argument does not fit. */
export function readOptions(args: readonly string[]): ChaosOptions | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      minutes: { type: 'string', default: '2' },
      seed: { type: 'string' },
      form: { type: 'string', default: 'redis' },
      rate: { type: 'string' },
      out: { type: 'string' },
      report: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return 'help'
  const { form } = values
  if (form !== 'redis' && form !== 'embedded') throw new Error(`--form is ${form}: redis or embedded`)
  return {
    minutes: number('minutes', values.minutes, 0.1, 24 * 60),
    seed: values.seed === undefined ? Date.now() % 1_000_000 : wholeNumber('seed', values.seed),
    form,
    rate: number('rate', values.rate ?? (form === 'redis' ? '60' : '40'), 1, 1_000),
    out: values.out ?? null,
    report: values.report ?? null,
  }
}

function number(name: string, text: string, low: number, high: number): number {
  const value = Number(text)
  if (text.trim() === '' || !(value >= low && value <= high)) {
    throw new Error(`--${name} is ${text}: a number from ${low} to ${high}`)
  }
  return value
}

function wholeNumber(name: string, text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new Error(`--${name} is ${text}: a whole number of at most nine digits`)
  return Number(text)
}

/** The command that repeats a run. */
export function commandOf({ minutes, seed, form, rate }: ChaosOptions): string {
  return `npm run chaos -- --minutes ${minutes} --seed ${seed} --form ${form} --rate ${rate}`
}
