import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { makeDirectory, removeDirectory, startUpstreamProcess } from '../fleet.ts'
import { followRecord } from '../record.ts'
import { describeCommit, describeMachine, writePage } from '../report.ts'
import { startContender, systems, type SystemName } from './contender.ts'
import { act, concerns, schedule, type Scheduled } from './schedule.ts'
import { renderRows, tallyRow, type Line, type Row } from './tally.ts'

const latencyMs = 250

const usage = `Usage: npm run chaos:compare -- [options]

The same upstream, the same producer and the same faults against a hand-written BullMQ worker, the same on pg-boss, and
Askonce (policies rerun, its default, and hold), one after the other; prints what each cost, lost and changed. About six minutes.

  --seconds S      how long keys are submitted, for each system (default 50)
  --drain S        how long a system may take afterwards to end what it accepted (default 75)
  --rate R         new keys a second (default 24)
  --seed N         decides order and times of the faults (default 1)
  --no-flush       leave FLUSHALL out of the faults: a Redis that never loses its data
  --out FILE       write the table as JSON
  --report FILE    write it as Markdown, between <!-- compare:begin --> and <!-- compare:end --> where the file has them
  --help           this text
`

interface Options {
  seconds: number
  drain: number
  rate: number
  seed: number
  flush: boolean
  out: string | undefined
  report: string | undefined
}

function readOptions(): Options | 'help' {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '50' },
      drain: { type: 'string', default: '75' },
      rate: { type: 'string', default: '24' },
      seed: { type: 'string', default: '1' },
      'no-flush': { type: 'boolean', default: false },
      out: { type: 'string' },
      report: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return 'help'
  const number = (name: 'seconds' | 'drain' | 'rate' | 'seed'): number => {
    const value = Number(values[name])
    if (!(value >= 1)) throw new Error(`--${name} is ${values[name]}: a number from 1 on`)
    return value
  }
  const { out, report } = values
  return {
    seconds: number('seconds'),
    drain: number('drain'),
    rate: number('rate'),
    seed: number('seed'),
    flush: !values['no-flush'],
    out,
    report,
  }
}

/** What runs against each other, as installed. */
function describeVersions(): string {
  const load = createRequire(import.meta.url)
  const peers = ['bullmq', 'pg-boss'].map((name) => {
    const { version } = load(`${name}/package.json`) as { version: string }
    return `${name} ${version}`
  })
  return [`Askonce ${describeCommit()}`, `Node ${process.versions.node}`, ...peers].join(', ')
}

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

async function runOne(name: SystemName, plan: readonly Scheduled[], options: Options): Promise<Row> {
  const directory = await makeDirectory()
  const record = join(directory, 'producer.ndjson')
  const upstream = await startUpstreamProcess(latencyMs)
  const drainMs = options.drain * 1_000
  const contender = await startContender(name, { directory, upstream, record, rate: options.rate, drainMs })
  const began = performance.now()
  const faultTimes: number[] = []
  for (const fault of plan.filter((one) => concerns(one, contender))) {
    await sleep(Math.max(0, began + fault.atMs - performance.now()))
    say(`${name}: ${Math.round((performance.now() - began) / 1_000)} s: ${fault.kind}`)
    faultTimes.push(Date.now())
    await act(fault, contender, upstream)
  }
  await sleep(Math.max(0, began + options.seconds * 1_000 - performance.now()))
  say(`${name}: no new keys; waiting until all have ended, ${options.drain} s at most`)
  await contender.producer.stop(drainMs + 30_000)
  const { byKey } = await upstream.calls()
  const row = tallyRow(name, followRecord<Line>(record)(), byKey, faultTimes)
  await contender.stop()
  await upstream.child.kill()
  await removeDirectory(directory)
  return row
}

async function main(): Promise<number> {
  let options: Options | 'help'
  try {
    options = readOptions()
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage}`)
    return 2
  }
  if (options === 'help') {
    say(usage)
    return 0
  }
  const machine = describeMachine()
  const versions = describeVersions()
  const plan = schedule(options.seed, options.seconds * 1_000, options.flush)
  const rows: Row[] = []
  for (const name of systems) rows.push(await runOne(name, plan, options))

  const { seconds, rate, seed, drain, flush } = options
  const command = `npm run chaos:compare -- --seconds ${seconds} --drain ${drain} --rate ${rate} --seed ${seed}${flush ? '' : ' --no-flush'}`
  const table = renderRows(rows)
  say(`\n${versions}\n\n${table}\n`)
  if (options.out !== undefined) {
    writeFileSync(options.out, `${JSON.stringify({ command, versions, plan, rows }, null, 2)}\n`)
  }
  if (options.report !== undefined) {
    const faults = plan.map(({ atMs, kind }) => `${(atMs / 1000).toFixed(0)} s ${kind}`).join(', ')
    const head = `Command: \`${command}\`. ${new Date().toISOString().slice(0, 10)}, ${machine}, ${versions}.`
    writePage(options.report, 'compare', `${head}\nFaults: ${faults}.\n\n${table}`)
  }
  return 0
}

process.exitCode = await main()
