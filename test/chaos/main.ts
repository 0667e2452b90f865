import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { check, tally, type Finding } from './checker.ts'
import { Client } from './client.ts'
import { startEmbeddedFleet } from './embedded-fleet.ts'
import { embeddedFaults } from './embedded-faults.ts'
import type { Fault } from './faults.ts'
import { apiKey, callTimeoutSeconds, type Fleet } from './fleet.ts'
import { runNemesis, type Injected } from './nemesis.ts'
import { commandOf, readOptions, usage, type ChaosOptions } from './options.ts'
import { Probe } from './probe.ts'
import { openRecord } from './record.ts'
import {
  describeCommit,
  describeMachine,
  percentile,
  renderReport,
  writePage,
  type KindFigures,
  type Report,
} from './report.ts'
import { serverFaults } from './server-faults.ts'
import { startServerFleet } from './server-fleet.ts'
import { Witness } from './witness.ts'

/** Of the upstream's answers: short, so that two cores get through many jobs. */
const latencyMs = 250
/** How long everything may take to come to rest once the faults have stopped. */
const settleMs = 120_000
const lookEveryMs = 5_000

interface Run<F extends Fleet> {
  options: ChaosOptions
  fleet: F
  faults: readonly Fault<F>[]
  /** Aborted by Ctrl-C. */
  interrupted: AbortSignal
}

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** A line that is written over on a terminal, and comes every half minute elsewhere. */
function progress(): (text: string, force?: boolean) => void {
  const terminal = process.stdout.isTTY
  let next = 0
  return (text) => {
    if (terminal) process.stdout.write(`\r${text}\u001b[K`)
    else if (performance.now() >= next) {
      next = performance.now() + 30_000
      say(text)
    }
  }
}

async function run<F extends Fleet>({ options, fleet, faults, interrupted }: Run<F>): Promise<Report> {
  const startedAt = new Date().toISOString()
  const machine = describeMachine()
  const probeRecord = join(fleet.directory, 'records', 'probe.ndjson')
  const record = openRecord(probeRecord)
  const client = new Client({ addresses: fleet.addresses, apiKey, record, callTimeoutSeconds })
  const probe = new Probe(fleet, client)
  const witness = new Witness(fleet, [...fleet.records, probeRecord])
  const [server] = await fleet.sql<{ server_version: string }>('show server_version')

  let broken: string | null = null
  const over = new AbortController()
  const breakOff = (what: string): void => {
    broken ??= what
    over.abort()
  }
  interrupted.addEventListener('abort', () => breakOff('interrupted'), { once: true })
  const timer = setTimeout(() => over.abort(), options.minutes * 60_000)
  const began = performance.now()
  const injected: Injected[] = []
  const show = progress()
  const raises = fleet.teams.raise(fleet.sql, over.signal)
  const watch = (async () => {
    while (!over.signal.aborted) {
      const findings = await witness.lookMeanwhile()
      if (findings.length > 0) breakOff(explain(findings))
      const seconds = Math.round((performance.now() - began) / 1000)
      show(
        `${seconds} s: ${witness.book.accepted()} jobs accepted, ${injected.length} faults, last: ${injected.at(-1)?.kind ?? 'none yet'}`,
      )
      await sleep(lookEveryMs, undefined, { signal: over.signal }).catch(() => undefined)
    }
  })()
  watch.catch((error: unknown) => breakOff(`the checker broke off: ${String(error)}`))

  // Some work is under way before the first fault.
  await sleep(2_000)
  await runNemesis(
    {
      fleet,
      faults,
      seed: options.seed,
      probe,
      signal: over.signal,
      onFailure: breakOff,
    },
    injected,
  )
  clearTimeout(timer)
  over.abort()
  await watch.catch(() => undefined)
  await raises

  let settled = true
  if (broken === null) {
    show(`all faults are over; no tenant has limits any more; waiting until every job has ended or is held`)
    await fleet.teams.lift(fleet.sql)
    const ends = await Promise.all([fleet.finishProducers(), client.settle(probe.submissions, settleMs)])
    settled = ends[0] && ends[1].length === 0
  }
  await probe.idle()
  await record.close()
  const evidence = await witness.evidence()
  // After a break-off jobs are still under way: nothing can be said of what is lost or held.
  const findings = check(broken === null ? evidence : { ...evidence, jobs: null })
  if (broken === null && findings.length > 0) broken = explain(findings)
  // Keys that were never accepted cannot be lost; that the API takes none of them is a fault all the same.
  if (broken === null && !settled) broken = 'not every key came to an end, or was held, in time'

  const states: Record<string, number> = {}
  for (const key of witness.book.keys.keys()) {
    const state = evidence.jobs?.get(key)?.state
    if (state !== undefined) states[state] = (states[state] ?? 0) + 1
  }
  const recoveries = injected.flatMap(({ recoveryMs }) => (recoveryMs === null ? [] : [recoveryMs]))
  return {
    command: commandOf(options),
    seed: options.seed,
    form: options.form,
    minutes: options.minutes,
    startedAt,
    broken,
    figures: {
      'jobs accepted': witness.book.accepted(),
      'faults injected': injected.length,
      'kinds of faults': new Set(injected.map(({ kind }) => kind)).size,
      'faults that met another': injected.filter(({ overlapped }) => overlapped).length,
      'jobs lost': tally(findings, 'lost').keys,
      'jobs held without cause': tally(findings, 'held without cause').keys,
      'keys with two answers': tally(findings, 'two answers').keys,
      calls: witness.totals.calls,
      'ledger rows': witness.totals.ledgerRows,
      'calls missing in the ledger': tally(findings, 'missing in the ledger').count,
      'calls beyond the budget': tally(findings, 'beyond the budget').count,
      'calls beyond a limit': tally(findings, 'beyond a limit').count,
      'dollars beyond a budget': tally(findings, 'beyond a budget of dollars').count,
      'recovery p50 ms': percentile(recoveries, 0.5),
      'recovery p95 ms': percentile(recoveries, 0.95),
      'recovery max ms': Math.max(0, ...recoveries),
    },
    states,
    faults: byKind(injected),
    machine,
    versions: {
      Askonce: describeCommit(),
      Node: process.versions.node,
      PostgreSQL: server?.server_version.split(' ')[0] ?? 'unknown',
    },
    ownEnds: fleet.processes().flatMap(({ ownEnds }) => ownEnds),
  }
}

async function runAndStop<F extends Fleet>(given: Run<F>): Promise<Report> {
  try {
    return await run(given)
  } finally {
    await given.fleet.stop()
  }
}

function explain(findings: readonly Finding[]): string {
  const shown = findings.slice(0, 5).map(({ promise, key, what }) => `${promise}: ${key}: ${what}`)
  return `${shown.join('; ')}${findings.length > 5 ? `; and ${findings.length - 5} more` : ''}`
}

function byKind(injected: readonly Injected[]): KindFigures[] {
  const kinds = [...new Set(injected.map(({ kind }) => kind))].toSorted()
  return kinds.map((kind) => {
    const those = injected.filter((one) => one.kind === kind)
    const recoveries = those.flatMap(({ recoveryMs }) => (recoveryMs === null ? [] : [recoveryMs]))
    return { kind, count: those.length, p50: percentile(recoveries, 0.5), max: Math.max(0, ...recoveries) }
  })
}

async function main(): Promise<number> {
  let options: ChaosOptions | 'help'
  try {
    options = readOptions(process.argv.slice(2))
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage}`)
    return 2
  }
  if (options === 'help') {
    say(usage)
    return 0
  }
  const interrupt = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupt.abort())

  say(`chaos on the ${options.form} form, ${options.minutes} minutes, seed ${options.seed}: starting`)
  const sizes = { seed: options.seed, rate: options.rate, latencyMs, settleMs }
  const shared = { options, interrupted: interrupt.signal }
  let report: Report
  if (options.form === 'redis') {
    const fleet = await startServerFleet(sizes)
    report = await runAndStop({ ...shared, fleet, faults: serverFaults })
  } else {
    const fleet = await startEmbeddedFleet(sizes)
    report = await runAndStop({ ...shared, fleet, faults: embeddedFaults })
  }

  if (process.stdout.isTTY) say('')
  for (const [name, value] of Object.entries(report.figures)) say(`${name}: ${value}`)
  for (const end of report.ownEnds) say(end)
  if (options.out !== null) writeFileSync(options.out, `${JSON.stringify(report, null, 2)}\n`)
  if (options.report !== null) writePage(options.report, `chaos-${options.form}`, renderReport(report))
  if (report.broken !== null) {
    say(`BROKEN PROMISE (seed ${report.seed}): ${report.broken}\nto repeat: ${report.command}`)
    return 1
  }
  say(`every promise was kept (seed ${report.seed})`)
  return 0
}

process.exitCode = await main()
