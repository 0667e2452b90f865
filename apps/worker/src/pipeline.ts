import { pauseAt } from '@askonce/config'
import type { FailureVerdict, JobState, Verdict } from '@askonce/core'
import type { Provider, StreamSink } from '@askonce/providers'
import type { AttemptEndRecord, Claim } from '@askonce/store'
import type { Log, Metrics } from '@askonce/telemetry'
import { within } from '@askonce/timing'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { endRecord, unsentEnd } from './end-record.ts'
import type { HeldAttempt, HeldAttempts } from './held.ts'
import type { LaneControl } from './lane-control.ts'
import { lookUpFailedEnd, type LookUps } from './look-up.ts'
import type { Recorder } from './recorder.ts'
import type { StreamWriter } from './stream-writer.ts'

/** How long a failure waits for what it does to its lane. Longer, and the job costs its lane one more refused call. */
const laneLimitMs = 2_000

export interface PipelineParts {
  held: HeldAttempts
  providers: ReadonlyMap<string, Provider>
  laneControl: LaneControl
  lookUps: LookUps
  recorder: Recorder
  streams: StreamWriter
  log: Log
  metrics: Metrics
  /** Whether a call may leave now: the last beat is fresh and the worker is not stopping. */
  maySend: () => boolean
  workerId: () => string
}

/** One claimed attempt on its way: call → classify (in the provider) → decide → record → report. */
interface Flight {
  claim: Claim
  held: HeldAttempt
  startedAt: number
  end: AttemptEndRecord
}

/**
 * Carries a claimed attempt to its end, which is written before this returns. Milliseconds: the job is queued again, and due after them. Never
 * rejects.
 */
export async function runAttempt(parts: PipelineParts, claim: Claim, held: HeldAttempt): Promise<number | null> {
  const startedAt = performance.now()
  const stream = claim.streamed ? parts.streams.begin(claim) : null
  const end = await callAndDecide(parts, claim, held, stream)
  const { committed, movedTo } = await recordAndReport(parts, { claim, held, startedAt, end })
  stream?.end()
  if (movedTo === 'queued') return end.delayMs
  const { lane, model } = claim
  if (committed && end.action === 'answer') await parts.laneControl.onAnswer({ lane, model })
  return null
}

// A function of its own, so that nothing but the end holds the answer's bytes while it waits for the database: see unload().
async function callAndDecide(
  parts: PipelineParts,
  claim: Claim,
  held: HeldAttempt,
  stream: StreamSink | null,
): Promise<AttemptEndRecord> {
  if (pauseAt !== null) await pauseAt('worker.claimed')
  // An earlier call of this job may have been answered: nothing is paid before the provider has said.
  const lookUp = await parts.lookUps.before(claim, held.abort.signal)
  if (lookUp === 'failed') return lookUpFailedEnd(claim, Math.random())
  const calledAt = performance.now()
  const verdict = lookUp === 'adopted' ? null : await call(parts, claim, held, stream)
  if (pauseAt !== null) await pauseAt('worker.answered')
  if (verdict === null) return unsentEnd(claim, false)
  const end = endRecord(claim, verdict, held.abortedFor, Math.random())
  if (verdict.kind !== 'answer') await closeLane(parts, claim, verdict, calledAt)
  return end
}

/** Null: it was not sent, for reasons of ours. */
async function call(
  parts: PipelineParts,
  claim: Claim,
  held: HeldAttempt,
  stream: StreamSink | null,
): Promise<Verdict | null> {
  const provider = parts.providers.get(claim.lane)
  // Connections that the provider closed while this process stood still are known as closed before one is chosen: a request on such a one
  // is maybe paid.
  await nextTurn()
  if (provider === undefined || held.abort.signal.aborted || !parts.maySend()) return null
  let sent = false
  try {
    return await provider.call({
      operation: claim.operation,
      model: claim.model,
      request: marked(provider, claim) ?? claim.request,
      ...(stream === null ? {} : { stream }),
      ...(claim.request_headers === null ? {} : { headers: claim.request_headers }),
      timeoutMs: claim.timeout_ms,
      signal: held.abort.signal,
      onSent: () => (sent = true),
    })
  } catch {
    // A defect of ours in the provider code. What was sent may be billed, whatever went wrong here.
    return {
      kind: sent ? 'unknown' : 'rerun',
      billing: sent ? 'maybe' : 'none',
      sent,
      code: sent ? 'broken_answer' : 'not_sent',
      message: 'The call failed inside the worker',
      providerStatus: null,
      providerRequestId: null,
      retryAfterMs: null,
      body: null,
      overloaded: false,
    }
  }
}

/** What a look-up finds is no stream: streamed answers are not looked up. */
function marked({ stored }: Provider, { streamed, operation, request, mark }: Claim): Buffer | null {
  return streamed ? null : (stored?.marked(operation, request, mark) ?? null)
}

/**
 * Before the end is written: the job must not be back in the queue of a lane that nobody has closed yet. An answer never waits for its
 * lane, and what a failure proves is worth more than a lane that is closed in time: without it the job counts as maybe paid.
 */
async function closeLane(
  { laneControl }: PipelineParts,
  { lane, model }: Claim,
  verdict: FailureVerdict,
  calledAt: number,
): Promise<void> {
  const late = (): Error => new Error(`lane ${lane} is closed late`)
  const asked = { lane, model, sinceMs: performance.now() - calledAt }
  await within(laneControl.onFailure(asked, verdict), laneLimitMs, late).catch(() => undefined)
}

/** Whether the end is in the database, and where it moved the job to. */
async function recordAndReport(
  parts: PipelineParts,
  { claim, held, startedAt, end: brought }: Flight,
): Promise<{ committed: boolean; movedTo: JobState | null }> {
  const { recorder, metrics, log } = parts
  const durationMs = Math.round(performance.now() - startedAt)
  const { committed, end, ended } = await recorder.record(claim.tenant_id, brought)
  // An attempt whose end is not in the database stays held: a beat would take it for one that was never sent.
  if (!committed) return { committed, movedTo: null }
  parts.held.release(held)
  const outcome = end.action === 'answer' && ended?.answerAttempt !== end.attempt ? 'surplus' : end.outcome
  const lane = claim.lane
  metrics.attempts.inc({ outcome, billing: end.billing, lane })
  metrics.callDuration.observe({ lane, outcome }, durationMs / 1000)
  if (end.costUsd !== null) metrics.spendUsd.inc({ lane }, end.costUsd)
  if (end.inputTokens !== null) metrics.tokens.inc({ lane, direction: 'input' }, end.inputTokens)
  if (end.outputTokens !== null) metrics.tokens.inc({ lane, direction: 'output' }, end.outputTokens)
  log.event('attempt.ended', {
    tenant: claim.tenant_id,
    job_id: claim.id,
    attempt: claim.attempt,
    generation: claim.generation,
    operation: claim.operation,
    model: claim.model,
    lane,
    worker: parts.workerId(),
    state: ended?.state ?? null,
    outcome,
    error_code: end.errorCode,
    status: end.providerStatus,
    duration_ms: durationMs,
    queue_ms: Math.round(claim.queue_ms),
    tokens_in: end.inputTokens,
    tokens_out: end.outputTokens,
    cost_usd: end.costUsd,
  })
  return { committed, movedTo: ended?.movedTo ?? null }
}
