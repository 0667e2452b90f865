import {
  billings,
  decideEnd,
  endActions,
  isTransition,
  isUncounted,
  jobStates,
  mayRun,
  mayRunUnasked,
  outcomes,
  uncertainPolicies,
  type AttemptEnd,
  type Decision,
  type DecisionColumns,
} from '@askonce/core'
import { describe, expect, it } from 'vitest'

interface Case {
  job: DecisionColumns
  end: AttemptEnd
  got: Decision
}

const booleans = [false, true]

/** Billing that an action can come with: an answer was billed, a refusal was not. */
const billingOf = {
  answer: ['billed'],
  unstorable: ['billed'],
  stop: ['none', 'maybe'],
  rerun: ['none', 'maybe'],
  unknown: ['maybe'],
} as const

/** Every combination of columns; the ended attempt is the first of two. */
function* everyCase(): Generator<Case> {
  for (const state of jobStates)
    for (const onUncertain of uncertainPolicies)
      for (const attempt of [1, 2])
        for (const generation of [1, 2])
          for (const paid of [1, 2, 3])
            for (const maxPaidAttempts of [1, 2])
              for (const consentedPaid of [0, 2, 3])
                for (const tries of [1, 2])
                  for (const expired of booleans)
                    for (const overdue of booleans)
                      for (const action of endActions)
                        for (const billing of billingOf[action])
                          for (const uncounted of billing === 'none' ? booleans : [false]) {
                            const money = { paid, maxPaidAttempts, consentedPaid, onUncertain }
                            const job = {
                              ...money,
                              state,
                              attempt,
                              generation,
                              tries,
                              maxAttempts: 2,
                              expired,
                              overdue,
                            }
                            const end = { attempt: 1, generation: 1, action, billing, uncounted }
                            yield { job, end, got: decideEnd(job, end) }
                          }
}

const allCases = [...everyCase()]

/** Asserts over all cases that `applies` to, and that there are some. */
function assertAlways(applies: (given: Case) => boolean, holds: (given: Case) => boolean): void {
  const concerned = allCases.filter((given) => applies(given))
  expect(concerned.length).toBeGreaterThan(50)
  expect(concerned.filter((given) => !holds(given)).slice(0, 3)).toEqual([])
}

const after = ({ job, got }: Case): DecisionColumns => ({ ...job, paid: got.paid, tries: got.tries })
const isMaybe = ({ end }: Case): boolean => end.action === 'unknown'

describe('decideEnd, over every combination of columns', () => {
  it('moves only along listed transitions', () => {
    assertAlways(
      ({ got }) => got.next !== null,
      ({ job, got }) => isTransition(job.state, got.next ?? 'running'),
    )
  })

  it('owns the job exactly when it runs this attempt', () => {
    assertAlways(
      () => true,
      ({ job, end, got }) => got.owned === (job.state === 'running' && job.attempt === end.attempt),
    )
  })

  it('never queues what may not run, has no try left or is overdue', () => {
    assertAlways(
      ({ got }) => got.next === 'queued',
      (given) => mayRun(after(given)) && given.got.tries < given.job.maxAttempts && !given.job.overdue,
    )
  })

  it('never lets paid or tries grow: paid falls by one on proof, tries by one for an uncounted end of this generation', () => {
    assertAlways(
      () => true,
      ({ job, end, got }) =>
        got.paid === job.paid - (end.billing === 'none' ? 1 : 0) &&
        got.tries === job.tries - (end.uncounted && end.generation === job.generation ? 1 : 0),
    )
  })

  it('without the fence changes nothing but the counts, save for an answer and for late proof', () => {
    assertAlways(
      ({ end, got }) => !got.owned && end.action !== 'answer' && end.billing !== 'none',
      ({ got }) => got.next === null,
    )
    assertAlways(
      ({ job, end, got }) => !got.owned && end.action !== 'answer' && job.state !== 'uncertain',
      ({ got }) => got.next === null,
    )
  })

  it('with the fence always ends the run', () => {
    assertAlways(
      ({ job, end, got }) => got.owned && !(end.action === 'answer' && job.expired),
      ({ got }) => got.next !== null,
    )
  })

  it('adopts an answer unless the job is succeeded, cancelled or expired', () => {
    assertAlways(
      ({ end }) => end.action === 'answer',
      ({ job, got }) =>
        got.next === (job.state === 'succeeded' || job.state === 'cancelled' || job.expired ? null : 'succeeded'),
    )
    assertAlways(
      ({ end }) => end.action !== 'answer',
      ({ got }) => got.next !== 'succeeded',
    )
  })

  it('under rerun holds a maybe that meets a limit and never fails it', () => {
    const underRerun = (given: Case): boolean => isMaybe(given) && given.got.owned && given.job.onUncertain === 'rerun'
    assertAlways(underRerun, (given) => {
      const { job } = given
      const again = mayRun(after(given)) && job.tries < job.maxAttempts && !job.overdue
      return given.got.next === (again ? 'queued' : 'uncertain')
    })
  })

  it('under hold and fail never queues after a maybe, whatever was consented to', () => {
    assertAlways(
      (given) => isMaybe(given) && given.got.owned && given.job.onUncertain !== 'rerun',
      ({ job, got }) => got.next === (job.onUncertain === 'hold' ? 'uncertain' : 'failed'),
    )
  })

  it('fails an unpaid rerun after the deadline, saying so, and nothing else', () => {
    assertAlways(
      ({ job, end, got }) => got.owned && end.action === 'rerun' && job.overdue,
      ({ got }) => got.next === 'failed' && got.deadlineExceeded,
    )
    assertAlways(
      ({ job, end, got }) => !(got.owned && end.action === 'rerun' && job.overdue),
      ({ got }) => !got.deadlineExceeded,
    )
  })

  it('fails a rerun that is out of tries, and a refusal at once', () => {
    assertAlways(
      ({ job, end, got }) => got.owned && end.action === 'rerun' && !job.overdue && got.tries >= job.maxAttempts,
      ({ got }) => got.next === 'failed',
    )
    assertAlways(
      ({ end, got }) => got.owned && end.action === 'stop',
      ({ got }) => got.next === 'failed',
    )
  })

  it('holds a paid answer that cannot be stored', () => {
    assertAlways(
      ({ end, got }) => got.owned && end.action === 'unstorable',
      ({ got }) => got.next === 'uncertain',
    )
  })

  it('releases an uncertain job on late proof only where it may run unasked', () => {
    assertAlways(
      ({ job, end }) => job.state === 'uncertain' && end.billing === 'none',
      (given) => {
        const { job, got } = given
        const released = mayRunUnasked(after(given)) && got.tries < job.maxAttempts && !job.overdue
        return got.next === (released ? 'queued' : null)
      },
    )
  })
})

describe('predicates', () => {
  const cases = uncertainPolicies.flatMap((onUncertain) =>
    [0, 1, 2, 3].flatMap((paid) =>
      [1, 2].flatMap((maxPaidAttempts) =>
        [0, 1, 2, 3].map((consentedPaid) => ({ onUncertain, paid, maxPaidAttempts, consentedPaid })),
      ),
    ),
  )

  it.each(cases)('%j', (job) => {
    const unasked = job.paid === 0 || (job.onUncertain === 'rerun' && job.paid < job.maxPaidAttempts)
    expect(mayRunUnasked(job)).toBe(unasked)
    expect(mayRun(job)).toBe(unasked || job.paid < job.consentedPaid)
  })
})

describe('isUncounted', () => {
  it('gives a try back for what was not sent, and for pauses and alarms', () => {
    const uncounted = outcomes.filter((outcome) => isUncounted(outcome, true))
    expect(uncounted).toEqual(['paused', 'alarmed', 'unsent'])
    for (const outcome of outcomes) expect(isUncounted(outcome, false)).toBe(true)
  })

  it('names billings from proof to fact', () => {
    expect(billings).toEqual(['none', 'maybe', 'billed'])
  })
})
