/** One job in the hands of the worker that is frozen. */
export interface Case {
  key: string
  policy: 'rerun' | 'hold' | 'fail'
  /** What the upstream says to the frozen worker's call. */
  late: object
  /** What it says to the successor's. */
  next?: object
  /** State that the job has reached when the worker is thawed. */
  meanwhile: string
  /** State and number of the answer afterwards, and the ledger: outcome and billing by attempt. */
  after: [state: string, answer: number | null]
  ledger: [outcome: string | null, billing: string | null][]
}

// Longer than it takes to freeze the worker after its calls have arrived; a frozen process reads nothing, however late.
const delayMs = 6_000
export const answer = { kind: 'answer', delayMs }
const refused = {
  kind: 'refuse',
  status: 400,
  delayMs,
  body: { error: { message: 'no', type: 'invalid_request_error', code: null, param: null } },
}
const asksToWait = {
  kind: 'refuse',
  status: 429,
  delayMs,
  headers: { 'retry-after-ms': '50' },
  body: { error: { message: 'slow down', type: 'requests', code: 'rate_limit_exceeded', param: null } },
}
const cut = { kind: 'cut', after: 'half', delayMs }
export const hang = { kind: 'hang' }
const lost: [string, string] = ['lost', 'maybe']
export const none = 'none'
const billed = 'billed'

export const cases: Case[] = [
  // Whatever is not a success changes nothing but the ledger, whether the successor is done or not.
  {
    key: 'refused, answered',
    policy: 'rerun',
    late: refused,
    meanwhile: 'succeeded',
    after: ['succeeded', 2],
    ledger: [
      ['rejected', none],
      ['answered', billed],
    ],
  },
  {
    key: 'refused, running',
    policy: 'rerun',
    late: refused,
    next: hang,
    meanwhile: 'running',
    after: ['running', null],
    ledger: [
      ['rejected', none],
      [null, null],
    ],
  },
  {
    key: 'released, running',
    policy: 'rerun',
    late: asksToWait,
    next: hang,
    meanwhile: 'running',
    after: ['running', null],
    ledger: [
      ['paused', none],
      [null, null],
    ],
  },
  {
    key: 'broken, running',
    policy: 'rerun',
    late: cut,
    next: hang,
    meanwhile: 'running',
    after: ['running', null],
    ledger: [lost, [null, null]],
  },
  {
    key: 'drained, running',
    policy: 'rerun',
    late: hang,
    next: hang,
    meanwhile: 'running',
    after: ['running', null],
    ledger: [lost, [null, null]],
  },
  {
    key: 'broken, held',
    policy: 'hold',
    late: cut,
    meanwhile: 'uncertain',
    after: ['uncertain', null],
    ledger: [lost],
  },
  {
    key: 'refused, failed',
    policy: 'fail',
    late: refused,
    meanwhile: 'failed',
    after: ['failed', null],
    ledger: [['rejected', none]],
  },
  // Proof that nothing was billed lets a held job go on: no second payment, for there was no first.
  {
    key: 'refused, held',
    policy: 'hold',
    late: refused,
    meanwhile: 'uncertain',
    after: ['succeeded', 2],
    ledger: [
      ['rejected', none],
      ['answered', billed],
    ],
  },
  // A success is adopted if nothing is stored, and aborts a running successor.
  {
    key: 'answered, held',
    policy: 'hold',
    late: answer,
    meanwhile: 'uncertain',
    after: ['succeeded', 1],
    ledger: [['answered', billed]],
  },
  {
    key: 'answered, failed',
    policy: 'fail',
    late: answer,
    meanwhile: 'failed',
    after: ['succeeded', 1],
    ledger: [['answered', billed]],
  },
  {
    key: 'answered, queued',
    policy: 'rerun',
    late: answer,
    meanwhile: 'queued',
    after: ['succeeded', 1],
    ledger: [['answered', billed]],
  },
  {
    key: 'answered, running',
    policy: 'rerun',
    late: answer,
    next: hang,
    meanwhile: 'running',
    after: ['succeeded', 1],
    ledger: [
      ['answered', billed],
      ['cancelled', 'maybe'],
    ],
  },
  // Else it is duplicate spend, and the ledger says so.
  {
    key: 'answered, answered',
    policy: 'rerun',
    late: answer,
    meanwhile: 'succeeded',
    after: ['succeeded', 2],
    ledger: [
      ['surplus', billed],
      ['answered', billed],
    ],
  },
  {
    key: 'answered, cancelled',
    policy: 'hold',
    late: answer,
    meanwhile: 'cancelled',
    after: ['cancelled', null],
    ledger: [['surplus', billed]],
  },
  {
    key: 'answered, deleted',
    policy: 'fail',
    late: answer,
    meanwhile: 'gone',
    after: ['gone', null],
    ledger: [['surplus', billed]],
  },
  {
    key: 'answered, expired',
    policy: 'fail',
    late: answer,
    meanwhile: 'gone',
    after: ['gone', null],
    ledger: [['surplus', billed]],
  },
  {
    key: 'answered, expired and not swept',
    policy: 'fail',
    late: answer,
    meanwhile: 'gone',
    after: ['failed', null],
    ledger: [['surplus', billed]],
  },
]
