import { parseArgs } from 'node:util'

export interface GuardOptions {
  /** Compared with names, files and tests. */
  only: RegExp | null
  list: boolean
  /** Path; null: not written. */
  report: string | null
}

export const usage = `Usage: npm run guards -- [options]

Breaks each guard of the product once, in a copy of this checkout, and looks whether a test notices. First the same tests run
on the unbroken copy: one that does not pass there shows nothing. Ends with code 0 if a test caught every break, with 1 if one went unnoticed.

  --only PATTERN   only guards whose name, file or test matches this regular expression, in any case
  --list           name them, and break nothing
  --report FILE    write the table as Markdown; a file with the markers <!-- guards:begin --> and <!-- guards:end --> keeps
                   what stands around them
  --help           this text

Needs a checkout, npm ci and Redis; it brings its own servers, all of them on 127.0.0.1.
`

/** Throws an error with a message for people when an argument does not fit. */
export function readOptions(args: readonly string[]): GuardOptions | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: 'string' },
      list: { type: 'boolean', default: false },
      report: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return 'help'
  return {
    only: values.only === undefined ? null : new RegExp(values.only, 'i'),
    list: values.list,
    report: values.report ?? null,
  }
}

/** The command that repeats a run. */
export function commandOf({ only }: GuardOptions): string {
  return only === null ? 'npm run guards' : `npm run guards -- --only '${only.source}'`
}
