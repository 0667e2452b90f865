import { jobError, type AnswerVerdict, type FailureVerdict } from '@askonce/core'
import { describe, expect, test } from 'vitest'
import { endRecord, unsentEnd } from '../../apps/worker/src/end-record.ts'

const claim = { id: '01890000-0000-7000-8000-000000000000', attempt: 3, reruns: 2 }

const failure = (change: Partial<FailureVerdict>): FailureVerdict => ({
  kind: 'rerun',
  billing: 'none',
  sent: true,
  code: 'provider_error',
  message: 'it broke',
  providerStatus: 500,
  providerRequestId: 'req-1',
  retryAfterMs: null,
  body: null,
  overloaded: false,
  ...change,
})

const answer: AnswerVerdict = {
  kind: 'answer',
  status: 200,
  contentType: 'application/json',
  body: Buffer.from('{"choices":[]}'),
  providerRequestId: 'req-2',
  answerId: null,
  flags: ['truncated'],
  usage: { inputTokens: 1, outputTokens: 2, costUsd: 0.5 },
}

describe('what is written of a call', () => {
  test('an answer is billed, with its exact bytes', () => {
    expect(endRecord(claim, answer, null, 0)).toMatchObject({
      jobId: claim.id,
      attempt: 3,
      action: 'answer',
      outcome: 'answered',
      billing: 'billed',
      response: answer.body,
      flags: ['truncated'],
      costUsd: 0.5,
      uncounted: false,
      error: null,
    })
  })

  test('an answer that came although the call was aborted is still an answer', () => {
    expect(endRecord(claim, answer, 'cancelled', 0).action).toBe('answer')
  })

  test.each([
    ['stop', { action: 'stop', outcome: 'rejected', backoff: false, delayMs: 0, uncounted: false }],
    ['rerun', { action: 'rerun', outcome: 'failed', backoff: true, delayMs: 2_000, uncounted: false }],
    ['pause', { action: 'rerun', outcome: 'paused', backoff: false, delayMs: 2_000, uncounted: true }],
    ['alarm', { action: 'rerun', outcome: 'alarmed', backoff: false, delayMs: 0, uncounted: true }],
  ] as const)('%s: nothing billed', (kind, expected) => {
    const end = endRecord(claim, failure({ kind }), null, 0.5)
    expect(end).toMatchObject({ ...expected, billing: 'none', response: null, onlyOpen: false })
    expect(JSON.parse(end.error ?? '')).toEqual(jobError('provider_error', 'it broke', 500))
  })

  test('unknown: maybe billed; a rerun waits for the backoff, but not where the worker stopped', () => {
    expect(endRecord(claim, failure({ kind: 'unknown', billing: 'maybe' }), 'drained', 0.9)).toMatchObject({
      delayMs: 0,
      backoff: false,
    })
    const end = endRecord(claim, failure({ kind: 'unknown', billing: 'maybe', code: 'timeout' }), null, 0.5)
    expect(end).toMatchObject({ action: 'unknown', outcome: 'unknown', billing: 'maybe', uncounted: false })
    expect(end).toMatchObject({ delayMs: 2_000, backoff: true })
  })

  test('a rerun that will send something else waits for nothing, and is no try', () => {
    const end = endRecord(claim, failure({ atOnce: true }), null, 0.5)
    expect(end).toMatchObject({ action: 'rerun', outcome: 'failed', delayMs: 0, backoff: false, uncounted: true })
  })

  test('a provider’s wait is the minimum', () => {
    expect(
      endRecord(claim, failure({ kind: 'pause', retryAfterMs: 60_000 }), null, 0.5).delayMs,
    ).toBeGreaterThanOrEqual(60_000)
  })

  test('a call that was never sent is no try, whatever stopped it', () => {
    const refused = failure({ sent: false, code: 'connection_failed', providerStatus: null })
    expect(endRecord(claim, refused, null, 0.5)).toMatchObject({
      outcome: 'failed',
      uncounted: true,
      billing: 'none',
      backoff: true,
    })
    expect(endRecord(claim, refused, 'drained', 0.5)).toEqual(unsentEnd({ id: claim.id, attempt: 3 }, false))
  })

  test.each([
    ['cancelled', 'cancelled', 'connection_lost'],
    ['drained', 'drained', 'worker_drained'],
  ] as const)('an aborted call that had been sent is maybe billed: %s', (aborted, outcome, errorCode) => {
    const end = endRecord(claim, failure({ kind: 'unknown', billing: 'maybe', code: 'connection_lost' }), aborted, 0)
    expect(end).toMatchObject({ action: 'unknown', outcome, billing: 'maybe', errorCode })
  })

  test('a refusal that came although the call was aborted keeps its proof', () => {
    expect(endRecord(claim, failure({ kind: 'stop' }), 'cancelled', 0)).toMatchObject({
      outcome: 'rejected',
      billing: 'none',
    })
  })

  test('a message that jsonb cannot hold is cleaned', () => {
    const end = endRecord(claim, failure({ message: 'a\u0000b\ud800c' }), null, 0)
    expect(JSON.parse(end.error ?? '')).toMatchObject({ message: 'ab\ufffdc' })
  })
})
