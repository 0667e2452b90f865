import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { describeCommit, describeMachine, writePage } from '../../test/chaos/report.ts'
import { startBench, type Bench } from '../bench.ts'
import { readOptions } from '../options.ts'
import { median } from '../stats.ts'
import { readable } from '../table.ts'
import { parts, predict, type Setup } from './model.ts'
import { replaying, submitting, working, type Point } from './points.ts'

const usage = `Usage: npm run measure:scale -- [options]

Measures what one process of each kind does on this machine, alone and with a share of the load, and what a job costs each part. From that
a small model (bench/scale/model.ts) predicts what several processes do; they are measured too, and both are printed beside each other.

  --rounds N     measurements of each point (default 3); medians are shown
  --report FILE  write the tables between <!-- scale:begin --> and <!-- scale:end --> of a page
  --smoke        one short round: shows that it runs
  --help         this text

Needs Redis, an idle machine and about six minutes.
`

/** A kind of work: what one process does with all of the load, and setups that are predicted. */
interface Series {
  name: string
  unit: string
  /** One process with so many connections, or calls, of its own. */
  alone: (bench: Bench, load: number) => Promise<Point>
  /** All of the load. */
  load: number
  setups: readonly {
    name: string
    processes: number
    /** Of each process. */
    load: number
    calls: Setup['calls']
    measure: (bench: Bench) => Promise<Point>
  }[]
}

const connections = 128
const atOnce = 200
const callMs = 200
const each = 25
/** What is done around a call: its claim before, and storing its answer. */
const aroundMs = 10

function apis(measure: (bench: Bench, apis: number, connections: number) => Promise<Point>) {
  return {
    alone: (bench: Bench, load: number) => measure(bench, 1, load),
    load: connections,
    setups: [
      {
        name: '2 APIs',
        processes: 2,
        load: connections / 2,
        calls: null,
        measure: (bench: Bench) => measure(bench, 2, connections / 2),
      },
    ],
  }
}

const drained = (bench: Bench, load: number): Promise<Point> => working(bench, 1, load, 0)

function callers(workers: number): Series['setups'][number] {
  return {
    name: `${workers} worker${workers === 1 ? '' : 's'} with ${each} calls of ${callMs} ms`,
    processes: workers,
    // When cores give out, groups are full: then a job costs what it costs a worker that is never idle.
    load: atOnce,
    calls: { each, ms: callMs + aroundMs },
    measure: (bench) => working(bench, workers, each, callMs),
  }
}

const series: readonly Series[] = [
  { name: 'accepting', unit: 'submissions/s', ...apis(submitting) },
  { name: 'replaying', unit: 'replays/s', ...apis(replaying) },
  {
    name: 'working',
    unit: 'jobs/s',
    alone: drained,
    load: atOnce,
    setups: [
      {
        name: '2 workers, calls that take no time',
        processes: 2,
        load: atOnce / 2,
        calls: null,
        measure: (bench) => working(bench, 2, atOnce / 2, 0),
      },
      ...[1, 2, 4].map(callers),
    ],
  },
]

function middle(points: readonly Point[]): Point {
  const of = (pick: (point: Point) => number): number => median(points.map(pick))
  return {
    perSecond: of(({ perSecond }) => perSecond),
    costs: Object.fromEntries(parts.map((part) => [part, of(({ costs }) => costs[part] ?? 0)])),
    busy: of(({ busy }) => busy),
  }
}

function costsRow(name: string, load: number, { perSecond, costs, busy }: Point): string {
  const cells = parts.map((part) => ((costs[part] ?? 0) === 0 ? '' : (costs[part] as number).toFixed(3)))
  return `| ${name} | ${load} | ${readable(perSecond)} | ${Math.round(busy * 100)} % | ${cells.join(' | ')} |`
}

async function measureAll(bench: Bench, rounds: number, say: (text: string) => void): Promise<string> {
  const cores = availableParallelism()
  const rows: string[] = []
  const alone: string[] = []
  const repeated = async (measure: () => Promise<Point>): Promise<Point> => {
    const points: Point[] = []
    for (let round = 0; round < rounds; round += 1) points.push(await measure())
    return middle(points)
  }
  for (const one of series) {
    const known = new Map<number, Point>()
    const calibrated = async (load: number): Promise<Point> => {
      const found = known.get(load) ?? (await repeated(() => one.alone(bench, load)))
      if (!known.has(load)) {
        alone.push(costsRow(one.name, load, found))
        say(alone.at(-1) ?? '')
      }
      known.set(load, found)
      return found
    }
    const { busy: usable } = await calibrated(one.load)
    for (const { name, processes, load, calls, measure } of one.setups) {
      const { perSecond: predicted, bound } = predict(await calibrated(load), { cores, usable, processes, calls })
      const { perSecond } = await repeated(() => measure(bench))
      const off = Math.round((predicted / perSecond - 1) * 100)
      rows.push(
        `| ${one.name} | ${name} | ${readable(perSecond)} ${one.unit} | ${readable(predicted)} | ${off > 0 ? '+' : ''}${off} % | ${bound} |`,
      )
      say(rows.at(-1) ?? '')
    }
  }
  return [
    'Measured alone, CPU in ms for each unit:',
    '',
    `| one process | at once | a second | cores busy | ${parts.join(' | ')} |`,
    `|---|---|---|---|${parts.map(() => '---|').join('')}`,
    ...alone,
    '',
    'Predicted from that:',
    '',
    '| work | setup | measured | predicted | off by | bound by |',
    '|---|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    report: { type: 'string' },
    smoke: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  process.stdout.write(usage)
} else {
  const interrupt = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => interrupt.abort(new Error('interrupted')))
  const machine = describeMachine()
  console.log(machine)
  const options = readOptions(values.smoke ? ['--smoke'] : [])
  if (options === 'help') throw new Error('not asked for')
  const bench = await startBench(options, interrupt.signal)
  try {
    const tables = await measureAll(bench, values.smoke ? 1 : Number(values.rounds), (text) => console.log(text))
    console.log(`\n${tables}`)
    const command = [
      'npm run measure:scale',
      ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : []),
    ].join(' ')
    const head = `Command: \`${command}\`. ${new Date().toISOString().slice(0, 10)}, ${machine}; the load generators and the servers ran on the same cores. Askonce ${describeCommit()}.`
    if (values.report !== undefined) writePage(values.report, 'scale', `${head}\n\n${tables}`)
  } finally {
    await bench.stop()
  }
}
