import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FakeJob, FakeServer } from './fake-state.ts'

export function submitOne(
  fake: FakeServer,
  byKey: Map<string, FakeJob>,
  key: string,
  operation: string,
  request: string,
): FakeJob | 'mismatch' | 'refused' {
  const known = byKey.get(key)
  if (known !== undefined) {
    settle(fake, known)
    if (known.request !== request) return 'mismatch'
    known.replayed = known.state !== 'failed'
    if (known.state === 'failed') start(fake, known)
    return known
  }
  if (fake.fateOf(key) === 'refuse') return 'refused'
  // By key, so that a file compares equal whatever the order of submission was.
  const id = `0199c0de-0000-7000-8000-${createHash('sha256').update(key).digest('hex').slice(0, 12)}`
  const model = (JSON.parse(request) as { model: string }).model
  const fate = fake.fateOf(key)
  const job: FakeJob = {
    id,
    key,
    operation,
    model,
    request,
    state: 'queued',
    settlesAt: 0,
    fate,
    replayed: false,
    paid: 0,
  }
  start(fake, job)
  byKey.set(key, job)
  fake.jobs.set(id, job)
  return job
}

function start(fake: FakeServer, job: FakeJob): void {
  job.fate = fake.fateOf(job.key)
  job.state = 'running'
  job.paid += 1
  job.settlesAt = Date.now() + (job.fate === 'hang' ? 1e9 : fake.latencyMs)
}

export function settle(fake: FakeServer, job: FakeJob): void {
  if (job.state === 'running' && fake.fateOf(job.key) === 'answer' && job.fate === 'hang') start(fake, job)
  if (job.state !== 'running' || Date.now() < job.settlesAt) return
  job.state = { answer: 'succeeded', fail: 'failed', uncertain: 'uncertain', refuse: 'failed', hang: 'running' }[
    job.fate
  ]
}

export async function waitFor(fake: FakeServer, job: FakeJob, seconds: number): Promise<void> {
  const until = Date.now() + seconds * 1000
  for (settle(fake, job); job.state === 'running' && Date.now() < until; settle(fake, job)) await sleep(5)
}

export function isOpen({ state }: FakeJob): boolean {
  return ['queued', 'running', 'uncertain'].includes(state)
}

export function jobText(fake: FakeServer, job: FakeJob): string {
  const { id, key, operation, model, state, replayed, paid } = job
  const error =
    state === 'failed' || state === 'uncertain'
      ? {
          code: state === 'failed' ? 'provider_rejected' : 'timeout',
          message: 'No.',
          retryable: false,
          provider_status: 400,
        }
      : null
  const now = new Date().toISOString()
  const text = JSON.stringify({
    id,
    object: 'job',
    key,
    operation,
    model,
    state,
    generation: 1,
    attempts: paid,
    replayed,
    error,
    flags: fake.simulated && state === 'succeeded' ? ['simulated'] : [],
    waiting_for: state === 'running' ? fake.waitingFor : null,
    usage: {
      input_tokens: 10,
      output_tokens: 5,
      cost_usd: fake.simulated ? null : 0.25,
      paid_attempts: paid,
      maybe_paid_attempts: 0,
    },
    metadata: null,
    created_at: now,
    run_at: now,
    started_at: now,
    completed_at: null,
    deadline_at: now,
    expires_at: null,
  })
  return `${text.slice(0, -1)},"response":${state === 'succeeded' && !fake.streams.has(key) ? fake.answerOf(key) : 'null'}}`
}
