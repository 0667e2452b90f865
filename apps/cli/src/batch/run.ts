import type { JsonObject } from '@askonce/core'
import type { Client, Server } from '../http.ts'
import { CliError, exitCodes, usageError } from '../errors.ts'
import { count } from '../format.ts'
import { failureOf } from '../job.ts'
import { waitingFor } from '../job-view.ts'
import { awaitServer } from '../server.ts'
import { printJson, remark } from '../terminal.ts'
import { tailOfJob, tailOfRefusal } from './answer-line.ts'
import { Engine } from './engine.ts'
import { type Ask, type BatchInput, readInput } from './input.ts'
import { catchInterrupt } from './interrupt.ts'
import { isRegular, openOutFile } from './out-file.ts'
import type { LineDefaults } from './parse-line.ts'
import { type Progress, silent, startProgress } from './progress.ts'
import { type Sink, streamSink } from './sink.ts'
import { printSummary, summaryDocument, type RunFacts } from './summary.ts'
import { Tally } from './tally.ts'

export interface BatchOptions {
  out: string
  model?: string
  onUncertain?: string
  maxPaidAttempts?: number
  ttl?: number
  priority?: number
  metadata?: Record<string, string>
  inFlight: number
  /** Seconds. */
  patience: number
  quiet?: boolean
  json?: boolean
}

/** Runs a whole batch and sets the exit code. Throws CliError when it cannot begin or cannot go on. */
export async function runBatch(source: string, options: BatchOptions): Promise<void> {
  const startedMs = performance.now()
  const input = await readInput(source, defaultsOf(options), announceReading(options))
  try {
    if (input.bad.total > 0) return refuseInput(source, input, options)
    // A producer that wrote nothing has most likely failed: an empty list of answers would look like success.
    if (input.lines.length === 0) {
      throw usageError(`${nameOf(source)} holds no request`, 'One JSON object a line: askonce batch --help shows them.')
    }
    const sink = await openSink(options.out, input)
    try {
      const tally = new Tally(input.lines.length)
      for (const ask of sink.kept) tally.answered('kept', lineCount(input, ask))
      const interrupted = await answerAll(input, sink, tally, options)
      const facts = { tally, out: options.out, elapsedMs: performance.now() - startedMs, interrupted }
      conclude(facts, options)
    } finally {
      await sink.close()
    }
  } finally {
    await input.close()
  }
}

/** What holds for lines that do not say it themselves. */
function defaultsOf({ model, onUncertain, maxPaidAttempts, ttl, priority, metadata }: BatchOptions): LineDefaults {
  const delivery: JsonObject = {
    ...(priority === undefined ? {} : { priority }),
    ...(ttl === undefined ? {} : { ttl_seconds: ttl }),
    ...(maxPaidAttempts === undefined ? {} : { max_paid_attempts: maxPaidAttempts }),
    ...(onUncertain === undefined ? {} : { on_uncertain: onUncertain }),
    ...(metadata === undefined ? {} : { metadata }),
  }
  return { model, delivery }
}

/** Gets and writes what is missing; resolves with true when the person at the keyboard stopped it. */
async function answerAll(input: BatchInput, sink: Sink, tally: Tally, options: BatchOptions): Promise<boolean> {
  const asks = input.asks.map((_, ask) => ask).filter((ask) => !sink.kept.has(ask))
  if (asks.length === 0) {
    await sink.finish()
    return false
  }
  const server = await greet(options)
  const stop = new AbortController()
  const interruption = catchInterrupt(stop)
  const progress = options.quiet ? silent : startProgress(process.stderr, tally)
  const client = await connect(server, options, stop, progress)
  try {
    await new Engine({ client, input, asks, stop, ...handlers(input, sink, tally, progress), ...limits(options) }).run()
    await sink.finish()
    return false
  } catch (error) {
    progress.stop()
    if (interruption.happened) return true
    if (!options.quiet)
      remark(`${tally.done} of ${count(tally.total, 'line')} done; run the same command again to continue`)
    throw error
  } finally {
    progress.stop()
    interruption.release()
    await client.close()
  }
}

function limits({ inFlight, patience }: BatchOptions) {
  return { inFlight, patienceMs: patience * 1000 }
}

/** What is done with each outcome: written, then counted, so that the count never says more than the file holds. */
function handlers(
  input: BatchInput,
  sink: Sink,
  tally: Tally,
  progress: Progress,
): Pick<ConstructorParameters<typeof Engine>[0], 'onSettled' | 'onRefused' | 'onWaiting'> {
  return {
    async onSettled(ask, answered, origin) {
      const { job } = answered
      const entry = input.asks[ask] as Ask
      await sink.write(ask, tailOfJob(entry, answered))
      progress.waiting(null)
      tally.spent(job, origin)
      if (job.state === 'succeeded') return tally.answered(origin, entry.lines.length)
      const { code, message } = failureOf(job)
      if (job.state === 'uncertain') tally.uncertain += entry.lines.length
      tally.refused(lineNumbers(input, entry), code, message)
    },
    async onRefused(ask, { code, message }) {
      const entry = input.asks[ask] as Ask
      await sink.write(ask, tailOfRefusal(entry, { code, message }))
      tally.refused(lineNumbers(input, entry), code, message)
    },
    onWaiting: ({ waiting_for: reason }) => progress.waiting(reason === null ? null : waitingFor(reason)),
  }
}

/**
 * Finds the server and asks it one thing: a wrong address or key is said before anything is submitted. A server that is not there, as
 * right after it was started, is waited for as long as one that goes away later; the waiting is said at once.
 */
async function greet({ patience, quiet }: BatchOptions): Promise<Server> {
  const patienceMs = patience * 1000
  const startedMs = performance.now()
  let said = false
  const onWait = (reason: string | null): void => {
    if (reason === null || said || quiet) return
    said = true
    remark(`${reason}; waiting for it, ${count(patience, 'second')} at most (--patience)`)
  }
  const server = await awaitServer(patienceMs, onWait)
  const { Client } = await import('../http.ts')
  const client = new Client(server, {
    patienceMs: Math.max(0, patienceMs - (performance.now() - startedMs)),
    awaitServer: true,
    onTrouble: (trouble) => onWait(trouble === null ? null : `no server answers at ${server.url}: ${trouble}`),
  })
  try {
    await client.send({ method: 'GET', path: '/v1/jobs?limit=1' })
    return server
  } finally {
    await client.close()
  }
}

async function connect(
  server: Server,
  { patience }: BatchOptions,
  stop: AbortController,
  progress: Progress,
): Promise<Client> {
  const { Client } = await import('../http.ts')
  return new Client(server, {
    patienceMs: patience * 1000,
    awaitServer: true,
    signal: stop.signal,
    onTrouble: (trouble) => progress.trouble(trouble === null ? null : `waiting for the server: ${trouble}`),
  })
}

async function openSink(out: string, input: BatchInput): Promise<Sink> {
  if (out === '-') return streamSink(input, process.stdout, 'stdout')
  if (await isRegular(out)) return openOutFile(out, input)
  const { createWriteStream } = await import('node:fs')
  return streamSink(input, createWriteStream(out), out)
}

function announceReading({ quiet }: BatchOptions): (lines: number) => void {
  const startedMs = performance.now()
  let saidMs = startedMs
  return (lines) => {
    if (quiet || lines % 1000 !== 0 || performance.now() - saidMs < 3_000) return
    saidMs = performance.now()
    remark(`checked ${count(lines, 'line')} so far`)
  }
}

function nameOf(source: string): string {
  return source === '-' ? 'stdin' : source
}

function refuseInput(source: string, { bad, lines }: BatchInput, { json }: BatchOptions): void {
  const name = nameOf(source)
  if (json) printJson({ object: 'batch', bad_lines: bad.total, problems: bad.shown })
  for (const { line, pointer, message } of json ? [] : bad.shown) {
    remark(`${name} line ${line}${pointer === '' ? '' : ` ${pointer}`}: ${message}`)
  }
  const hidden = bad.total - bad.shown.length
  throw usageError(
    `${count(bad.total, 'bad line')} of ${bad.total + lines.length} in ${name}; nothing was submitted`,
    hidden > 0 && !json ? `The first ${bad.shown.length} are shown, ${hidden} more are not.` : null,
  )
}

function conclude(facts: RunFacts, { out, quiet, json }: BatchOptions): void {
  if (json && out === '-') remark(JSON.stringify(summaryDocument(facts)))
  else if (json) printJson(summaryDocument(facts))
  else if (!quiet) printSummary(facts)
  if (facts.interrupted) process.exitCode = exitCodes.interrupted
  else if (facts.tally.failed > 0) {
    if (quiet && !json)
      throw new CliError(exitCodes.failed, `${facts.tally.failed} of ${facts.tally.total} lines failed`)
    process.exitCode = exitCodes.failed
  }
}

function lineCount(input: BatchInput, ask: number): number {
  return input.asks[ask]?.lines.length ?? 0
}

function lineNumbers(input: BatchInput, { lines }: Ask): number[] {
  return lines.map((line) => (input.lines[line]?.index ?? 0) + 1)
}
