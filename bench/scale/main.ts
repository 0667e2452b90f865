import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { describeCommit, describeMachine, writePage } from '../../test/chaos/report.ts'
import { startBench, type Bench } from '../bench.ts'
import { readOptions } from '../options.ts'
import { median } from '../stats.ts'
import { readable } from '../table.ts'
import { parts, predict, type Costs, type Setup } from './model.ts'
import { replaying, submitting, working, type Point } from './points.ts'

const usage = `Usage: npm run measure:scale -- [options]

Measures Askonce with one and with several processes of each kind on this machine, and what a job costs each part. A model of three lines
(bench/scale/model.ts) predicts every point from the costs of the smallest setup of its kind; both are printed beside each other.

  --rounds N     measurements of each point (default 3); medians are shown
  --report FILE  write the tables between <!-- scale:begin --> and <!-- scale:end --> of a page
  --smoke        one short round: shows that it runs
  --help         this text

Needs Redis, an idle machine and about six minutes.
`

/** A kind of work, measured with several numbers of processes; the costs are those of the first. */
interface Series {
  name: string
  unit: string
  setups: readonly { name: string; setup: Omit<Setup, 'cores'>; measure: (bench: Bench) => Promise<Point> }[]
}

const callMs = 200
const each = 25
/** What is done around a call: its claim before, and storing its answer. */
const aroundMs = 10

function callers(workers: number): Series['setups'][number] {
  const calls = { each, ms: callMs + aroundMs }
  return {
    name: `${workers} worker${workers === 1 ? '' : 's'} with ${each} calls of ${callMs} ms`,
    setup: { processes: { worker: workers }, calls },
    measure: (bench) => working(bench, workers, each, callMs),
  }
}

function apis(count: number, measure: (bench: Bench, count: number) => Promise<Point>): Series['setups'][number] {
  return {
    name: count === 1 ? '1 API' : `${count} APIs`,
    setup: { processes: { api: count, generator: count }, calls: null },
    measure: (bench) => measure(bench, count),
  }
}

function drainers(workers: number): Series['setups'][number] {
  return {
    name: `${workers} worker${workers === 1 ? '' : 's'}, calls that take no time`,
    setup: { processes: { worker: workers }, calls: null },
    measure: (bench) => working(bench, workers, 200 / workers, 0),
  }
}

const series: readonly Series[] = [
  { name: 'accepting', unit: 'submissions/s', setups: [apis(1, submitting), apis(2, submitting)] },
  { name: 'replaying', unit: 'replays/s', setups: [apis(1, replaying), apis(2, replaying)] },
  { name: 'working', unit: 'jobs/s', setups: [drainers(1), drainers(2)] },
  { name: 'calling', unit: 'jobs/s', setups: [callers(1), callers(2), callers(4)] },
]

function middle(points: readonly Point[]): Point {
  const costOf = (part: (typeof parts)[number]): number => median(points.map(({ costs }) => costs[part] ?? 0))
  return {
    perSecond: median(points.map(({ perSecond }) => perSecond)),
    costs: Object.fromEntries(parts.map((part) => [part, costOf(part)])),
  }
}

function costsRow(name: string, costs: Costs): string {
  const cells = parts.map((part) => ((costs[part] ?? 0) === 0 ? '' : (costs[part] as number).toFixed(3)))
  return `| ${name} | ${cells.join(' | ')} |`
}

async function measureAll(bench: Bench, rounds: number, say: (text: string) => void): Promise<string> {
  const cores = availableParallelism()
  const rows: string[] = []
  const costRows: string[] = []
  for (const { name, unit, setups } of series) {
    let costs: Costs | null = null
    for (const { name: setupName, setup, measure } of setups) {
      const points: Point[] = []
      for (let round = 0; round < rounds; round += 1) points.push(await measure(bench))
      const { perSecond, costs: found } = middle(points)
      if (costs === null) costRows.push(costsRow(name, found))
      costs ??= found
      const { perSecond: predicted, bound } = predict(costs, { cores, ...setup })
      const off = Math.round((predicted / perSecond - 1) * 100)
      const row = `| ${name} | ${setupName} | ${readable(perSecond)} ${unit} | ${readable(predicted)} | ${off > 0 ? '+' : ''}${off} % | ${bound} |`
      rows.push(row)
      say(row)
    }
  }
  return [
    '| work | setup | measured | predicted | off by | bound by |',
    '|---|---|---|---|---|---|',
    ...rows,
    '',
    `| CPU ms of one job | ${parts.join(' | ')} |`,
    `|---|${parts.map(() => '---|').join('')}`,
    ...costRows,
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
