import type { JobState } from '@askonce/core'
import { answerText } from './answer-text.ts'
import { exitCodes } from './errors.ts'
import { count, dollars, relative } from './format.ts'
import type { AnsweredJob, Job } from './job.ts'
import { oneLine, onTerminal, paint, print, printable, remark, type Style } from './terminal.ts'

const stateStyles: Partial<Record<JobState, Style>> = {
  succeeded: 'green',
  failed: 'red',
  uncertain: 'yellow',
  cancelled: 'dim',
}

export function stateStyle(state: JobState): Style | null {
  return stateStyles[state] ?? null
}

/** What a job cost, in words: `$0.0012`, `nothing (simulated)`, `a price we do not know`. */
function costOf({ usage, flags }: Pick<Job, 'usage' | 'flags'>): string {
  if (flags.includes('simulated')) return 'nothing (simulated)'
  if (usage.paid_attempts + usage.maybe_paid_attempts === 0) return 'nothing'
  return usage.cost_usd === null ? 'unknown price' : dollars(usage.cost_usd)
}

/** A job for people, its answer as text below it; or as one JSON document. */
export function showJob({ job, response }: AnsweredJob, text: string, asJson: boolean): void {
  if (asJson) return print(text)
  const style = stateStyle(job.state)
  const flags = job.flags.length > 0 ? ` (${job.flags.join(', ')})` : ''
  const tried = count(job.attempts, 'attempt')
  const maybe = job.usage.maybe_paid_attempts > 0 ? `, ${job.usage.maybe_paid_attempts} maybe paid` : ''
  const rows: [string, string][] = [
    ['id', job.id],
    ['key', job.key],
    ['state', `${style === null ? job.state : paint(process.stdout, style, job.state)}${flags}`],
    ['model', `${oneLine(job.model)}, ${job.operation}`],
    ['attempts', `${tried}, ${job.usage.paid_attempts} paid${maybe}; cost: ${costOf(job)}`],
    ['created', relative(job.created_at)],
  ]
  if (job.expires_at !== null) rows.push(['expires', relative(job.expires_at)])
  if (job.waiting_for !== null) rows.push(['waits for', waitingFor(job.waiting_for)])
  if (job.error !== null) rows.push(['error', `${job.error.code}: ${oneLine(job.error.message)}`])
  for (const [name, value] of Object.entries(job.metadata ?? {})) rows.push([`  ${oneLine(name)}`, oneLine(value)])
  for (const [name, value] of rows) printRow(name, value)
  if (response !== null) printText(printable(answerText(response)))
}

const nameWidth = 9

/** Its value breaks between words, and stays in its column. */
function printRow(name: string, value: string): void {
  const [first, ...rest] = onTerminal(value, nameWidth + 1).split('\n')
  print(`${paint(process.stdout, 'dim', name.padEnd(nameWidth))} ${first}`)
  for (const line of rest) print(`${' '.repeat(nameWidth + 1)}${line}`)
}

/** The text of an answer, below the job. */
export function printText(text: string): void {
  print(`\n${onTerminal(text)}`)
}

/** Why a queued job does not run, in words: `lane openai: credentials refused. Mend it, then: …`. */
export function waitingFor({ kind, name, reason, until }: NonNullable<Job['waiting_for']>): string {
  const why = oneLine(reason)
  switch (kind) {
    case 'lane': {
      const lane = `lane ${oneLine(name)}`
      return until === null
        ? `${lane}: ${why}. Mend it, then: askonce lanes resume ${oneLine(name)}`
        : `${lane}: ${why}, ${relative(until)}`
    }
    case 'schedule': {
      const what = reason === 'scheduled' ? 'its time' : `its next attempt after ${why}`
      return until === null ? what : `${what}, ${relative(until)}`
    }
    case 'tenant_limit':
      return until === null ? why : `${why}; ${relative(until)}`
    case 'budget':
      return until === null ? why : `${why}; it resets ${minute(until)}`
  }
}

/** `2026-12-01 00:00 UTC`. */
function minute(time: string): string {
  return `${new Date(time).toISOString().slice(0, 16).replace('T', ' ')} UTC`
}

/** Says on stderr what can be done now, and returns the exit code: 1 when there will be no answer by itself. */
export function concludeJob({ id, state, replayed }: Job, waited: boolean): number {
  switch (state) {
    case 'queued':
    case 'running':
      remark(`${waited ? 'Not finished yet' : 'Accepted'}. The answer: askonce get ${id} --wait 60`)
      return exitCodes.ok
    case 'succeeded':
      if (replayed === true) remark('The stored answer; nothing was asked again.')
      return exitCodes.ok
    case 'uncertain':
      remark(
        `Held: it may have been billed. Decide: askonce retry ${id} --accept-duplicate-charge, or askonce fail ${id}`,
      )
      return exitCodes.failed
    case 'failed':
    case 'cancelled':
      remark(`To run it again: askonce retry ${id}`)
      return exitCodes.failed
  }
}
