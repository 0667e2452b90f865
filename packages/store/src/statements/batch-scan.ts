import { sql } from 'kysely'
import { unnest } from '../rows.ts'
import type { BatchFault, BatchRow, Db } from '../tables.ts'
import { batchColumns } from './batches.ts'
import { dropFilesWithin } from './files.ts'

/** A batch that this driver works on, until its lease ends. */
export interface LeasedBatch extends BatchRow {
  lease: string
  /** The window has ended, by the database clock. */
  over: boolean
}

/**
 * Takes batches that have something to do, at most `limit`, longest waiting first. One driver at a time has a batch; when it dies,
 * its lease ends and the next one goes on from the last commit. The lease saves work; what keeps results right are
 * the row lock and the conditions of each write.
 */
export async function takeBatches(db: Db, limit: number, leaseMs: number): Promise<LeasedBatch[]> {
  const { rows } = await sql<LeasedBatch>`
    with due as (
      select id from batches
      where ended_at is null and wake_at <= now() and (leased_until is null or leased_until <= now())
      order by wake_at limit ${limit}
      for update skip locked
    )
    update batches b set lease = gen_random_uuid(), leased_until = now() + ${leaseMs} * interval '1 millisecond'
    from due where b.id = due.id
    returning ${batchColumns}, b.lease, b.expires_at <= now() as over
  `.execute(db)
  return rows
}

/** Whether there is any batch that has not ended. */
export async function hasActiveBatches(db: Db): Promise<boolean> {
  const { rows } = await sql<{ active: boolean }>`
    select exists (select from batches where ended_at is null) as active
  `.execute(db)
  return rows[0]?.active ?? false
}

/** Gives a batch back, to be looked at again after so long. Without the lease nothing changes. */
export async function releaseBatch(
  db: Db,
  { id, lease }: Pick<LeasedBatch, 'id' | 'lease'>,
  wakeInMs: number,
): Promise<void> {
  await sql`
    update batches set lease = null, leased_until = null, wake_at = now() + ${wakeInMs} * interval '1 millisecond'
    where id = ${id}::uuid and lease = ${lease}::uuid
  `.execute(db)
}

/** A line that was found good, or that gets `refusal` as its result. */
export interface ScannedLine {
  line: number
  customId: string
  fingerprint: Buffer
  model: string
  lane: string
  request: Buffer
  jobId: string
  refusal: string | null
  /** The most that its call can cost, US dollars, and use, tokens; null: unknown. */
  reserveUsd: number | null
  reserveTokens: number | null
}

export interface ScanStep {
  /** Where the next line begins, and how many lines come before it. */
  bytes: number
  lines: number
  /** With everything found so far. */
  errors: readonly BatchFault[]
  found: readonly ScannedLine[]
  leaseMs: number
}

/**
 * Records a piece of the validation. Returns the lines whose custom_id was there already; they are not recorded, and `faultOf` makes
 * their fault, in the same transaction: a crash in between must not let them pass. Null: somebody else has the batch.
 */
export function recordScan(
  db: Db,
  { id, lease }: LeasedBatch,
  step: ScanStep,
  faultOf: (line: number) => BatchFault,
): Promise<BatchFault[] | null> {
  return db.transaction().execute(async (transaction) => {
    const { rows: owned } = await sql`
      update batches set scan_bytes = ${step.bytes}::bigint, scan_lines = ${step.lines}, errors = ${JSON.stringify(step.errors)}::jsonb,
        total = total + ${step.found.length}, leased_until = now() + ${step.leaseMs} * interval '1 millisecond'
      where id = ${id}::uuid and lease = ${lease}::uuid and status = 'validating'
      returning id
    `.execute(transaction)
    if (owned.length === 0) return null
    if (step.found.length === 0) return []
    const { rows } = await sql<{ line: number }>`
      insert into batch_lines (
        batch_id, line, custom_id, fingerprint, model, lane, request, job_id, refusal, reserve_usd, reserve_tokens
      )
      select ${id}::uuid, i.line, i.custom_id, i.fingerprint, i.model, i.lane, i.request, i.job_id, i.refusal::jsonb,
        i.reserve_usd, i.reserve_tokens
      from ${unnest<ScannedLine>(
        step.found,
        {
          line: ['integer', (line) => line.line],
          custom_id: ['text', (line) => line.customId],
          fingerprint: ['bytea', (line) => line.fingerprint],
          model: ['text', (line) => line.model],
          lane: ['text', (line) => line.lane],
          request: ['bytea', (line) => line.request],
          job_id: ['uuid', (line) => line.jobId],
          refusal: ['text', (line) => line.refusal],
          reserve_usd: ['numeric', (line) => line.reserveUsd],
          reserve_tokens: ['integer', (line) => line.reserveTokens],
        },
        'i',
      )}
      on conflict (batch_id, custom_id) do nothing
      returning line
    `.execute(transaction)
    const inserted = new Set(rows.map(({ line }) => line))
    const faults = step.found.filter(({ line }) => !inserted.has(line)).map(({ line }) => faultOf(line))
    if (faults.length === 0) return []
    await sql`
      update batches set errors = errors || ${JSON.stringify(faults)}::jsonb, total = total - ${faults.length}
      where id = ${id}::uuid
    `.execute(transaction)
    return faults
  })
}

/** The whole input is good: its lines are submitted from now on. False: somebody else has the batch, or it was cancelled. */
export async function startBatch(db: Db, { id, lease }: LeasedBatch): Promise<boolean> {
  const { rows } = await sql`
    update batches set status = 'in_progress', in_progress_at = now()
    where id = ${id}::uuid and lease = ${lease}::uuid and status = 'validating' and errors = '[]'::jsonb and total > 0
    returning id
  `.execute(db)
  return rows.length > 0
}

/** Ends a batch before anything of it ran: `failed` for its faults, or cancelled while it was validated. */
export function dropScan(
  db: Db,
  batch: LeasedBatch,
  to: { status: 'failed'; errors: readonly BatchFault[] } | { status: 'cancelled' },
): Promise<boolean> {
  return db.transaction().execute(async (transaction) => {
    const errors = to.status === 'failed' ? JSON.stringify(to.errors) : null
    const { rows } = await sql`
      update batches set
        status = ${to.status}, ended_at = now(), total = 0, errors = coalesce(${errors}::jsonb, errors), lease = null,
        leased_until = null
      where id = ${batch.id}::uuid and lease = ${batch.lease}::uuid and in_progress_at is null and ended_at is null
        and status = ${to.status === 'failed' ? 'validating' : 'cancelling'}
      returning id
    `.execute(transaction)
    if (rows.length === 0) return false
    await sql`delete from batch_lines where batch_id = ${batch.id}::uuid`.execute(transaction)
    const { kind, input_file_id: input, output_file_id: output, error_file_id: failures } = batch
    await dropFilesWithin(transaction, kind === 'anthropic' ? [input, output, failures] : [output, failures])
    return true
  })
}
