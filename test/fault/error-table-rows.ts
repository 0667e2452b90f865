import type { FailureVerdict } from '@askonce/core'
import type { Behaviour } from '@askonce/testkit'
import { answered, broken } from '../contract/providers-answers.ts'
import { cases, type RealKind } from '../contract/providers-lines.ts'

interface Job {
  key: string
  operation: string
  request: { model: string; user: string }
  on_uncertain?: string
  timeout_seconds?: number
}

/** One job that meets one line of ERRORS.md. Its key is its marker at the upstream. */
export interface Row {
  name: string
  kind: RealKind
  key: string
  job: Job
  /** What the upstream does with the first request; the next ones are answered. */
  behaviour: Behaviour
  /** Whether the upstream counts that first request as a call. */
  billed: boolean
  verdict: Partial<FailureVerdict>
}

const kinds = ['openai', 'anthropic'] as const
const policies = ['hold', 'rerun', 'fail'] as const

function jobOf(kind: RealKind, key: string, more: Partial<Job> = {}, name = 'test'): Job {
  const messages = [{ role: 'user', content: 'hello' }]
  const job =
    kind === 'openai'
      ? { operation: 'chat.completions', request: { model: `gpt-${name}`, user: key, messages } }
      : { operation: 'messages', request: { model: `claude-${name}`, user: key, messages, max_tokens: 9 } }
  return { key, ...job, ...more }
}

/** A job that is answered at once, on the lane that `kind` does not use. */
export const witness = (kind: RealKind): Job => jobOf(kind === 'openai' ? 'anthropic' : 'openai', 'witness')

const refused: Row[] = cases.map(({ name, kind, refuse, verdict }, index) => ({
  name,
  kind,
  key: `line-${index}`,
  job: jobOf(kind, `line-${index}`),
  behaviour: { kind: 'refuse', ...refuse },
  billed: refuse.billed ?? false,
  verdict,
}))

const closesLane = ({ verdict }: Row): boolean =>
  verdict.kind === 'pause' || verdict.kind === 'alarm' || (verdict.kind === 'rerun' && verdict.overloaded === true)

/** Lines that stop or rerun the job and leave the lane alone. */
export const openRows = refused.filter((row) => !closesLane(row) && row.verdict.kind !== 'unknown')

/** Lines that pause or stop the lane, or count towards its breaker. */
export const laneRows = refused.filter(closesLane)

const unknown = { kind: 'unknown', billing: 'maybe' } as const
const lost: Omit<Row, 'key' | 'job'>[] = kinds.flatMap((kind) => [
  ...broken.map(({ name, behaviour, code }) => ({
    name,
    kind,
    behaviour,
    billed: behaviour.kind !== 'reset',
    verdict: { ...unknown, code: code as FailureVerdict['code'] },
  })),
  {
    name: 'no answer in time',
    kind,
    behaviour: { kind: 'hang' },
    billed: true,
    verdict: { ...unknown, code: 'timeout' },
  },
])

/** Lines after which nobody knows whether the call was billed, under each policy. */
export const unknownRows = [...refused.filter(({ verdict }) => verdict.kind === 'unknown'), ...lost].flatMap(
  (row, index) =>
    policies.map((policy) => {
      const key = `unknown-${index}-${policy}`
      const timeout = row.behaviour.kind === 'hang' ? { timeout_seconds: 3 } : {}
      const job = jobOf(row.kind, key, { on_uncertain: policy, ...timeout })
      return Object.assign({}, row, { policy, key, job })
    }),
)

/** Lines about a whole answer. */
export const answerRows = [
  ...answered.map(({ name, kind, body, flags }, index) => {
    const key = `answer-${index}`
    const behaviour: Behaviour = { kind: 'answer', body: JSON.stringify(body) }
    return { name, kind, flags, key, job: jobOf(kind, key), behaviour }
  }),
  {
    name: 'larger than any request',
    kind: 'openai' as RealKind,
    flags: [],
    key: 'answer-large',
    job: jobOf('openai', 'answer-large'),
    behaviour: { kind: 'answer', answerBytes: 12_000_000 } as Behaviour,
  },
]

/** Lines that send no byte of a request: lanes of their own, see the test's configuration file. */
export const unreachable = kinds.flatMap((kind) =>
  [
    { name: 'connection refused', lane: 'refused' },
    { name: 'no such host', lane: 'nowhere' },
    { name: 'TLS failure', lane: 'tls' },
  ].map(({ name, lane }) => {
    const key = `${lane}-${kind}`
    return { name, kind, lane: key, key, job: jobOf(kind, key, {}, lane) }
  }),
)
