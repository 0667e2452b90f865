import type { JobState } from './job.ts'

/** One arrow of the state machine. `from: null` is a key that has no live row. */
export interface Transition {
  event: string
  from: readonly (JobState | null)[]
  to: JobState
  /** Condition on the row, in words; the statement that makes the change carries it. */
  when: string
}

/**
 * Every change of a job's state. The CHECK constraints, the statements, docs/lifecycle.md and a test are compared with it.
 */
export const transitions: readonly Transition[] = [
  { event: 'submit', from: [null], to: 'queued', when: 'the key is new or its row has expired (then with a new id)' },
  {
    event: 'resubmit',
    from: ['failed', 'cancelled'],
    to: 'queued',
    when: 'same fingerprint, not expired, may run unasked, if cancelled then with its batch; generation + 1, tries 0, fresh deadline',
  },
  {
    event: 'retry',
    from: ['failed', 'cancelled', 'uncertain'],
    to: 'queued',
    when: 'not expired, may run unasked or consent given; generation + 1, tries 0, fresh deadline',
  },
  {
    event: 'claim',
    from: ['queued'],
    to: 'running',
    when: 'due, before its deadline, may run, tries left, lane and model open, worker alive; attempt + 1, tries + 1, paid + 1',
  },
  {
    event: 'answer',
    from: ['running', 'queued', 'failed', 'uncertain'],
    to: 'succeeded',
    when: 'a success of any attempt, however late, while the job is not expired',
  },
  {
    event: 'rerun',
    from: ['running'],
    to: 'queued',
    when: 'fence holds, may run, tries left, before the deadline; after a maybe only under policy rerun',
  },
  {
    event: 'fail',
    from: ['running'],
    to: 'failed',
    when: 'fence holds; refused by the provider, out of tries or overdue after an end that is known, or a maybe under policy fail',
  },
  {
    event: 'hold',
    from: ['running'],
    to: 'uncertain',
    when: 'fence holds; a maybe under policy hold, a maybe that meets a limit under rerun, or an answer that cannot be stored',
  },
  {
    event: 'release',
    from: ['uncertain'],
    to: 'queued',
    when: 'late proof that nothing was billed, may run unasked, tries left, before the deadline',
  },
  { event: 'deadline', from: ['queued'], to: 'failed', when: 'deadline_at has passed' },
  { event: 'give_up', from: ['uncertain'], to: 'failed', when: 'asked to fail, or held longer than uncertain_ttl' },
  {
    event: 'cancel',
    from: ['queued', 'running', 'uncertain'],
    to: 'cancelled',
    when: 'asked to cancel, or queued and the one batch that wanted it has ended',
  },
]

/** Whether some event leads from one state to the other. */
export function isTransition(from: JobState | null, to: JobState): boolean {
  return transitions.some((transition) => transition.to === to && transition.from.includes(from))
}

/** The table above as Markdown, for docs/lifecycle.md. */
export function renderTransitions(): string {
  const rows = transitions.map(
    ({ event, from, to, when }) =>
      `| ${event} | ${from.map((state) => state ?? '(no row)').join(', ')} | ${to} | ${when} |`,
  )
  return ['| event | from | to | when |', '|---|---|---|---|', ...rows].join('\n')
}
