import { parseArgs } from 'node:util'
import { caseNames, type CaseName } from './case-names.ts'

export interface BenchOptions {
  rounds: number
  cases: readonly CaseName[]
  /** One short round: it shows that everything still runs, its figures mean nothing. */
  smoke: boolean
  ageRows: number
  sweepRows: number
  /** Paths; null: not written. */
  json: string | null
  report: string | null
  profile: string | null
}

/** They take long, and run only when they are asked for. */
const longCases: readonly CaseName[] = ['age', 'sweep']

export const usage = `Usage: npm run bench -- [options]

Measures Askonce beside what one would pick instead, in one run, taking turns. Prints medians, their spread, and ratios
beside the targets. Ends with code 0 whether or not targets are met, and with 1 when something could not be measured.

  --case A,B       only these cases: ${caseNames.join(', ')}
  --rounds N       measurements of each contender (default 3)
  --smoke          one short round of everything but ${longCases.join(' and ')}: shows that it runs, its figures mean nothing
  --long           ${longCases.join(' and ')} too
  --age-rows N     terminal rows of the case age (default 10000000)
  --sweep-rows N   expired rows of the case sweep (default 1000000)
  --json FILE      write all measurements as JSON
  --report FILE    write the table as Markdown; a file with the markers <!-- bench:begin --> and <!-- bench:end --> keeps what
                   stands around them; of one case alone, those of its own name (bench-age) if the file has them
  --profile DIR    write CPU profiles of Askonce's processes to DIR and what the servers did for them, and print what took most;
                   slows them down
  --help           this text

Needs Redis and nothing else: it brings its own servers, all of them on 127.0.0.1 and on free ports. Its first run installs
the peers into bench/node_modules.
`

/** Throws an error with a message for people when an argument does not fit. */
export function readOptions(args: readonly string[]): BenchOptions | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string' },
      case: { type: 'string', multiple: true },
      smoke: { type: 'boolean', default: false },
      long: { type: 'boolean', default: false },
      'age-rows': { type: 'string', default: '10000000' },
      'sweep-rows': { type: 'string', default: '1000000' },
      json: { type: 'string' },
      report: { type: 'string' },
      profile: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return 'help'
  const asked = values.case?.flatMap((list) => list.split(',')) ?? null
  const unknown = asked?.filter((name) => !caseNames.some((known) => known === name)) ?? []
  if (unknown.length > 0) throw new Error(`--case ${unknown.join(', ')}: there are ${caseNames.join(', ')}`)
  const usual = caseNames.filter((name) => values.long || !longCases.includes(name))
  return {
    rounds: values.smoke ? 1 : wholeNumber('rounds', values.rounds ?? '3', 1, 99),
    cases: asked === null ? usual : caseNames.filter((name) => asked.includes(name)),
    smoke: values.smoke,
    ageRows: wholeNumber('age-rows', values['age-rows'], 1_000, 100_000_000),
    sweepRows: wholeNumber('sweep-rows', values['sweep-rows'], 1_000, 10_000_000),
    json: values.json ?? null,
    report: values.report ?? null,
    profile: values.profile ?? null,
  }
}

function wholeNumber(name: string, text: string, low: number, high: number): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < low || value > high) {
    throw new Error(`--${name} is ${text}: a whole number from ${low} to ${high}`)
  }
  return value
}
