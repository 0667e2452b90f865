import { isSettled, isTerminal, transitions, type JobState, type OnUncertain } from '@askonce/core'
import type { Move } from './moves.ts'
import { columnsOf, productRules, type Job, type Settings, type World } from './state.ts'

/** What an end of an attempt may do to its job. */
const eventsOfAnEnd = ['answer', 'rerun', 'fail', 'hold', 'release']

/** As the policy says, after a fenced end that may have been billed. */
const afterMaybe: Record<OnUncertain, readonly JobState[]> = {
  rerun: ['queued', 'uncertain'],
  hold: ['uncertain'],
  fail: ['failed'],
}

/** An arrow of the transition table, with the one state that it left. */
export function arrowName(event: string, from: JobState | null, to: JobState): string {
  return `${event}: ${from ?? 'no row'} to ${to}`
}

/** Name of the arrow of the transition table that a step took; null: the state did not change; undefined: there is none. */
export function arrowOf(before: World, move: Move): string | null | undefined {
  const from = before.job?.state ?? null
  const to = move.next.job?.state ?? null
  if (from === to || to === null) return null
  const allowed = move.event === 'end' ? eventsOfAnEnd : [move.event]
  const arrow = transitions.find((one) => allowed.includes(one.event) && one.to === to && one.from.includes(from))
  return arrow === undefined ? undefined : arrowName(arrow.event, from, to)
}

/** Name of the first promise that a step breaks; null: none. */
export function brokenByStep(before: World, move: Move, { onUncertain }: Settings): string | null {
  const { job } = before
  const after = move.next.job
  if (arrowOf(before, move) === undefined) return 'every change of state is an arrow of the table'
  if (job === null || after === null) return null
  if (job.answer !== 0 && after.answer !== job.answer) return 'an answer never changes'
  if (job.expired && (after.state !== job.state || after.answer !== job.answer)) return 'an expired job is absent'
  const left = job.state === 'running' && after.state !== 'running' && move.ended !== null
  if (left && after.state !== 'succeeded' && move.ended !== job.attempt) {
    return 'only its newest attempt moves a running job, unless with an answer'
  }
  if (move.event === 'resubmit' && job.state === 'cancelled' && !job.withBatch) {
    return 'what a person cancelled runs again only on a retry'
  }
  const was = before.attempts[(move.ended ?? 0) - 1]
  const is = move.next.attempts[(move.ended ?? 0) - 1]
  if (was === undefined || is === undefined || was.ledger === is.ledger) return null
  const isAnswer = is.ledger === 'billed' && was.phase !== 'unstorable'
  if (isAnswer && adopts(job) && after.state !== 'succeeded') return 'an answer that is recorded is adopted'
  const fenced = job.state === 'running' && move.ended === job.attempt
  if (fenced && is.ledger === 'maybe' && !afterMaybe[onUncertain].includes(after.state)) {
    return 'a maybe moves its job as the policy says'
  }
  return null
}

/** DESIGN.md §2, and not asked of the rules under test. */
function adopts({ state, expired }: Job): boolean {
  return state !== 'succeeded' && state !== 'cancelled' && !expired
}

/** Name of the first promise that a state breaks; null: none. */
export function brokenInState({ job, attempts, consents }: World, settings: Settings): string | null {
  for (const { ledger, charged } of attempts) {
    if (charged && ledger === 'absent') return 'a call is in the ledger before it leaves'
    if (charged && ledger === 'none') return 'the ledger says none only of what was not billed'
    if (ledger === 'billed' && !charged) return 'the ledger says billed only of what was answered'
  }
  const charged = attempts.filter((attempt) => attempt.charged).length
  const unasked = settings.onUncertain === 'rerun' ? settings.maxPaidAttempts : 1
  if (charged > unasked + consents) return 'never paid beyond the budget and the consents'
  if (job === null) return null
  const paid = attempts.filter(({ ledger }) => ledger !== 'none').length
  if (job.paid !== paid) return 'paid counts what is open, maybe or billed'
  const tries = attempts.filter((attempt) => attempt.generation === job.generation && !attempt.uncounted).length
  if (job.tries !== tries) return 'tries counts what was sent in this run'
  const columns = columnsOf(job, settings)
  if (job.state === 'queued' && !(productRules.mayRun(columns) && job.tries < settings.maxAttempts)) {
    return 'a queued job may run'
  }
  return null
}

/** Whether nothing more needs to happen by itself; also where the exploration was told to stop. */
export function atRest({ job, attempts }: World, settings: Settings): boolean {
  return job !== null && (isSettled(job.state) || (job.state === 'queued' && attempts.length >= settings.attempts))
}

/** Whether the job has ended; also where the exploration was told to stop. */
export function atEnd(world: World, settings: Settings): boolean {
  const { job } = world
  return job !== null && (isTerminal(job.state) || (atRest(world, settings) && job.state === 'queued'))
}
