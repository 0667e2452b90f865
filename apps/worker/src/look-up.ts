import { backoffMs, jobError } from '@askonce/core'
import type { LookUp, Provider } from '@askonce/providers'
import {
  readEarlierMaybes,
  readRequest,
  type AttemptEndRecord,
  type Claim,
  type Db,
  type MaybeAttempt,
} from '@askonce/store'
import { errorReason, type Log, type Metrics } from '@askonce/telemetry'
import { endRecord, unsentEnd } from './end-record.ts'
import { HeldLookUps } from './held-look-ups.ts'
import type { Recorder } from './recorder.ts'

/** For each of the two GETs: a claim waits for them. */
const timeoutMs = 5_000

export interface LookUpsOptions {
  db: Db
  providers: ReadonlyMap<string, Provider>
  recorder: Recorder
  log: Log
  metrics: Metrics
  stopping: AbortSignal
}

/**
 * Asks the provider for answers that were lost, before anything is paid again and while a job is held. What is found becomes the
 * end of the attempt that was paid, through adoption. Several workers that ask for the same are harmless.
 */
export class LookUps {
  private readonly options: LookUpsOptions

  constructor(options: LookUpsOptions) {
    this.options = options
  }

  /**
   * Before a claimed attempt is sent. `adopted`: an earlier attempt has brought the answer, or was about to; `failed`: it is not known,
   * so nothing may be sent. Never rejects.
   */
  async before(claim: Claim, signal: AbortSignal): Promise<'send' | 'adopted' | 'failed'> {
    const { db, providers } = this.options
    const { id: jobId, attempt: claimed, tenant_id: tenant, lane, model, operation, request, streamed, mark } = claim
    const stored = providers.get(lane)?.stored ?? null
    if (stored === null || claimed === 1 || streamed || stored.marked(operation, request, mark) === null) return 'send'
    try {
      const { attempts, consented } = await readEarlierMaybes(db, { id: jobId, attempt: claimed, lane })
      for (const earlier of attempts) {
        const outcome = await this.ask({ ...earlier, jobId, tenant, lane, model }, request, signal)
        if (outcome === 'found') return 'adopted'
        if (outcome === 'failed') return consented ? 'send' : 'failed'
      }
      return 'send'
    } catch (error) {
      this.options.log.event('loop.failed', { loop: 'look_up', reason: errorReason(error) })
      return 'failed'
    }
  }

  /** Looks after held jobs from now on, in the lanes that have look-ups. */
  start(): void {
    const { db, providers, log, metrics, stopping } = this.options
    for (const [lane, { stored }] of providers) {
      if (stored === null) continue
      void new HeldLookUps({ db, lane, ask: (row) => this.askAgain(row), log, metrics, stopping }).run()
    }
  }

  private async askAgain(row: MaybeAttempt): Promise<'found' | 'absent' | 'failed'> {
    const asked = await readRequest(this.options.db, { tenantId: row.tenant, id: row.jobId })
    // Deleted, or taken over, since it was read.
    return asked === null ? 'absent' : this.ask(row, asked.request, this.options.stopping)
  }

  private async ask(
    row: Omit<MaybeAttempt, 'heldMs'>,
    request: Buffer,
    signal: AbortSignal,
  ): Promise<'found' | 'absent' | 'failed'> {
    const { providers, recorder, log, metrics } = this.options
    const { jobId, attempt, mark, tenant, lane, model } = row
    const startedAt = performance.now()
    const answer: LookUp =
      (await providers.get(lane)?.stored?.find({ mark, model, request }, timeoutMs, signal)) ?? 'failed'
    const outcome = typeof answer === 'string' ? answer : 'found'
    const fields = { tenant, job_id: jobId, attempt, model, lane, outcome }
    metrics.lookUps.inc({ outcome, lane })
    if (typeof answer === 'string') {
      log.event('attempt.looked_up', { ...fields, duration_ms: Math.round(performance.now() - startedAt) })
      return answer
    }
    const end = endRecord({ id: jobId, attempt, reruns: 0 }, answer, null, 0)
    const { committed, ended } = await recorder.record(tenant, end)
    if (!committed || ended?.recorded !== true) return 'found'
    const { inputTokens, outputTokens, costUsd } = answer.usage
    if (costUsd !== null) metrics.spendUsd.inc({ lane }, costUsd)
    if (inputTokens !== null) metrics.tokens.inc({ lane, direction: 'input' }, inputTokens)
    if (outputTokens !== null) metrics.tokens.inc({ lane, direction: 'output' }, outputTokens)
    log.event('attempt.looked_up', {
      ...fields,
      state: ended.state,
      duration_ms: Math.round(performance.now() - startedAt),
      tokens_in: inputTokens,
      tokens_out: outputTokens,
      cost_usd: costUsd,
    })
    return 'found'
  }
}

/**
 * The end of a claimed attempt that was not sent because the look-up failed. It asks for what the policy does after a `maybe`, and counts
 * as a try: a provider that can never be asked leads to a held job.
 */
export function lookUpFailedEnd(claim: Pick<Claim, 'id' | 'attempt' | 'reruns'>, random: number): AttemptEndRecord {
  return {
    ...unsentEnd(claim, false),
    action: 'unknown',
    uncounted: false,
    delayMs: backoffMs({ reruns: claim.reruns, overloaded: true, retryAfterMs: null, random }),
    backoff: true,
    error: JSON.stringify(jobError('look_up_failed')),
    errorCode: 'look_up_failed',
  }
}
