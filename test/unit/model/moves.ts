import { isTerminal, type AttemptEnd, type JobState } from '@askonce/core'
import { columnsOf, ends, type Attempt, type Job, type Phase, type Rules, type Settings, type World } from './state.ts'

/** One step of one process. `event` names the arrow that it may take in the transition table. */
export interface Move {
  name: string
  by: 'worker' | 'provider' | 'janitor' | 'producer' | 'user' | 'fault' | 'clock'
  event: string
  /** Number of the attempt whose end this is. */
  ended: number | null
  next: World
}

const answered = { action: 'answer', billing: 'billed', uncounted: false } as const

type Make = (name: string, by: Move['by'], next: World, more?: { event?: string; ended?: number }) => void

/** Every step that can be taken next. */
export function movesOf(world: World, rules: Rules, settings: Settings): Move[] {
  const moves: Move[] = []
  const make: Make = (name, by, next, { event = name, ended } = {}) => {
    moves.push({ name, by, event, ended: ended ?? null, next: tidied(next, rules) })
  }
  requests(world, rules, settings, make)
  clock(world, make)
  claim(world, rules, settings, make)
  world.attempts.forEach((attempt, index) => {
    attemptMoves(world, attempt, index + 1, rules, settings, make)
  })
  return moves
}

/** Forgets what cannot matter any more, so that worlds that differ in nothing else are one. */
function tidied(world: World, rules: Rules): World {
  const attempts = world.attempts.map((attempt): Attempt => {
    const { ledger } = attempt
    const end = ends[attempt.phase]
    const vain = end !== undefined && ledger !== 'open' && !rules.recordable(ledger, end.billing, false)
    const phase = vain || (attempt.phase === 'reply_lost' && ledger !== 'open') ? 'over' : attempt.phase
    return { ...attempt, phase, ownerDead: attempt.ownerDead && ledger === 'open' }
  })
  return { ...world, attempts }
}

function withJob(world: World, change: Partial<Job>): World {
  return world.job === null ? world : { ...world, job: { ...world.job, ...change } }
}

function withAttempt(world: World, number: number, change: Partial<Attempt>): World {
  return {
    ...world,
    attempts: world.attempts.map((attempt, index) => (index + 1 === number ? { ...attempt, ...change } : attempt)),
  }
}

const newRun = (job: Job): Partial<Job> => ({
  state: 'queued',
  generation: job.generation + 1,
  tries: 0,
  overdue: false,
  withBatch: false,
})

/** Producer and user, who may ask at any moment. An expired row is absent to them; the id that replaces it is another world. */
function requests(world: World, rules: Rules, settings: Settings, make: Make): void {
  const { job } = world
  if (job === null) {
    const fresh: Job = {
      state: 'queued',
      attempt: 0,
      generation: 1,
      tries: 0,
      paid: 0,
      consentedPaid: 0,
      answer: 0,
      overdue: false,
      expired: false,
      withBatch: false,
    }
    return make('submit', 'producer', { ...world, job: fresh })
  }
  if (job.expired) return
  const columns = columnsOf(job, settings)
  const again = job.generation < settings.generations
  if (again && rules.resubmittable(job) && rules.resubmitRuns(columns)) {
    make('resubmit', 'producer', withJob(world, newRun(job)))
  }
  // owned-jobs.ts: any queued job may be wanted by one batch alone.
  if (job.state === 'queued') {
    const cancelled = withJob(world, { state: 'cancelled', withBatch: true })
    make('its batch ends', 'producer', cancelled, { event: 'cancel' })
  }
  const held = job.state === 'uncertain'
  if (again && (job.state === 'failed' || job.state === 'cancelled' || held)) {
    if (rules.retryUnasked(columns)) make('retry', 'user', withJob(world, newRun(job)))
    if (!held || rules.heldCanBeDecided) {
      const consented = withJob(world, { ...newRun(job), consentedPaid: rules.consentedPaid(job.paid) })
      make('retry with consent', 'user', { ...consented, consents: world.consents + 1 }, { event: 'retry' })
    }
  }
  if (held && !rules.heldCanBeDecided) return
  if (held) make('fail', 'user', withJob(world, { state: 'failed' }), { event: 'give_up' })
  if (rules.cancellable.includes(job.state)) make('cancel', 'user', withJob(world, { state: 'cancelled' }))
}

function clock(world: World, make: Make): void {
  const { job } = world
  if (job === null || job.expired) return
  if (isTerminal(job.state)) return make('expiry', 'clock', withJob(world, { expired: true }))
  if (!job.overdue) make('deadline passes', 'clock', withJob(world, { overdue: true }))
  else if (job.state === 'queued') make('deadline', 'janitor', withJob(world, { state: 'failed' }))
}

/** Any worker that is alive; the reply of the claim may be lost. */
function claim(world: World, rules: Rules, settings: Settings, make: Make): void {
  const { job } = world
  if (job?.state !== 'queued' || job.overdue || world.attempts.length >= settings.attempts) return
  if (job.tries >= settings.maxAttempts || !rules.mayRun(columnsOf(job, settings))) return
  const claimed: Job = {
    ...job,
    state: 'running',
    attempt: job.attempt + 1,
    tries: job.tries + 1,
    paid: job.paid + 1,
  }
  for (const phase of ['claimed', 'reply_lost'] as const) {
    const attempt: Attempt = {
      phase,
      generation: job.generation,
      ledger: rules.claimOpensLedger ? 'open' : 'absent',
      ownerDead: false,
      charged: false,
      uncounted: false,
    }
    const name = phase === 'claimed' ? 'claim' : 'claim, reply lost'
    make(name, 'worker', { ...world, job: claimed, attempts: [...world.attempts, attempt] }, { event: 'claim' })
  }
}

function attemptMoves(
  world: World,
  attempt: Attempt,
  number: number,
  rules: Rules,
  settings: Settings,
  make: Make,
): void {
  const to = (phase: Phase, change: Partial<Attempt> = {}): World => withAttempt(world, number, { phase, ...change })
  const end = (phase: Phase, onlyOpen: boolean, then: Phase): World => {
    const record = ends[phase]
    if (record === undefined) throw new Error(`${phase} is no end`)
    return applyEnd(to(then), number, { ...record, onlyOpen }, rules, settings)
  }
  const named = (what: string): string => `${what} #${number}`
  switch (attempt.phase) {
    case 'claimed':
      make(named('send'), 'worker', to('sent', { charged: true }))
      // Cancelled meanwhile, its lane closed, or its worker is stopping.
      make(named('do not send'), 'worker', to('unsent'))
      // The provider may have kept the answer to an earlier one, and does not say.
      if (world.attempts.slice(0, number - 1).some(({ ledger }) => ledger === 'maybe')) {
        make(named('do not send, for the provider cannot be asked,'), 'worker', to('not_asked'))
      }
      make(named('worker dies with'), 'fault', to('over'))
      break
    case 'reply_lost':
      if (!rules.sendNeedsReply) make(named('send'), 'worker', to('reply_lost', { charged: true }))
      // A worker that was marked dead goes on under a new id and does not see it any more.
      if (!attempt.ownerDead) {
        make(named('beat ends'), 'worker', end('unsent', true, 'over'), { event: 'end', ended: number })
      }
      make(named('worker dies with'), 'fault', to('over'))
      break
    case 'sent':
      make(named('answer to'), 'provider', to('answered'))
      make(named('answer that cannot be stored to'), 'provider', to('unstorable'))
      make(named('refusal of'), 'provider', to('refused', { charged: false }))
      make(named('rejection of'), 'provider', to('rejected', { charged: false }))
      make(named('no usable answer to'), 'provider', to('broken'))
      make(named('worker dies with'), 'fault', to('over'))
      break
    case 'answered':
    case 'unstorable':
    case 'refused':
    case 'rejected':
    case 'broken':
    case 'unsent':
    case 'not_asked':
      for (const then of ['over', attempt.phase] as const) {
        const what = then === 'over' ? 'record' : 'record, reply lost,'
        make(named(what), 'worker', end(attempt.phase, false, then), { event: 'end', ended: number })
      }
      make(named('worker dies with'), 'fault', to('over'))
      if (attempt.phase === 'answered') make(named('worker dies, spool keeps'), 'fault', to('spooled'))
      break
    case 'spooled':
      make(named('spool delivers'), 'worker', end('spooled', false, 'over'), { event: 'end', ended: number })
      break
    case 'over':
      if (attempt.ledger === 'maybe' && rules.lookUpFinds(attempt)) {
        const found = { ...answered, onlyOpen: false }
        const next = applyEnd(world, number, found, rules, settings)
        make(named('look-up finds the answer to'), 'worker', next, { event: 'end', ended: number })
      }
  }
  if (attempt.ledger !== 'open') return
  // A frozen worker looks dead; so this may be wrong.
  if (!attempt.ownerDead) make(named('declare dead the worker of'), 'janitor', to(attempt.phase, { ownerDead: true }))
  else if (rules.reclaimBilling !== null) {
    const record = { action: 'unknown', billing: rules.reclaimBilling, uncounted: false, onlyOpen: true } as const
    const next = applyEnd(world, number, record, rules, settings)
    make(named('reclaim'), 'janitor', next, { event: 'end', ended: number })
  }
}

type End = Omit<AttemptEnd, 'attempt' | 'generation'> & { onlyOpen: boolean }

/** end-attempts.ts: ledger and job in one step, the job only if the ledger changed. */
function applyEnd(world: World, number: number, end: End, rules: Rules, settings: Settings): World {
  const { job } = world
  const attempt = world.attempts[number - 1]
  if (job === null || attempt === undefined) return world
  if (!rules.recordable(attempt.ledger, end.billing, end.onlyOpen)) return world
  const { next, paid, tries } = rules.decideEnd(columnsOf(job, settings), {
    ...end,
    attempt: number,
    generation: attempt.generation,
  })
  const ended = withAttempt(world, number, { ledger: end.billing, uncounted: end.uncounted })
  const state: JobState = next ?? job.state
  return withJob(ended, { paid, tries, state, answer: next === 'succeeded' ? number : job.answer })
}
