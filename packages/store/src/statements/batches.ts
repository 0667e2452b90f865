import type { Operation } from '@askonce/core'
import { sql } from 'kysely'
import type { BatchRow, Db } from '../tables.ts'
import { expireFiles } from './files.ts'
import { sweepBytes, swept, type SweepBounds, type SweptRows } from './sweep.ts'

export const batchColumns = sql`
  b.id, b.tenant_id, b.kind, b.operation, b.endpoint, b.api_key_id, b.input_file_id, b.output_file_id, b.error_file_id,
  b.output_bytes, b.error_bytes, b.output_ttl_seconds, b.metadata, b.request_headers, b.key_prefix, b.completion_window, b.window_seconds,
  b.status, b.ending, b.errors, b.scan_bytes, b.scan_lines, b.total, b.submitted, b.done, b.succeeded, b.failed,
  b.cancelled, b.expired, b.replayed, b.input_tokens, b.output_tokens, b.cost_usd, b.created_at, b.expires_at,
  b.in_progress_at, b.finalizing_at, b.cancelling_at, b.ended_at`

export interface NewBatch {
  id: string
  tenantId: string
  kind: BatchRow['kind']
  operation: Operation
  endpoint: string
  apiKeyId: string
  inputFileId: string
  outputFileId: string
  errorFileId: string
  /** Of the files with its results, from its end; null: as long as the batch itself. */
  outputTtlSeconds: number | null
  /** JSON text, or null. */
  metadata: string | null
  /** JSON text, or null. */
  requestHeaders: string | null
  /** Null: the SHA-256 of the input. */
  keyPrefix: string | null
  completionWindow: string
  windowSeconds: number
  /** The input is this upload, which ends now and is nobody's file; null: a file of the tenant. */
  seal: { bytes: number; sha256: Buffer } | null
}

/** Makes a batch, to be validated. Null: the input is not there. */
export function createBatch(db: Db, batch: NewBatch): Promise<BatchRow | null> {
  const { seal } = batch
  return db.transaction().execute(async (transaction) => {
    if (seal !== null) {
      await sql`
        update files set status = 'internal', bytes = ${seal.bytes}::bigint, sha256 = ${seal.sha256}
        where id = ${batch.inputFileId}::uuid and status = 'uploading'
      `.execute(transaction)
    }
    const { rows } = await sql<BatchRow>`
      insert into batches as b (
        id, tenant_id, kind, operation, endpoint, api_key_id, input_file_id, output_file_id, error_file_id, output_ttl_seconds,
        metadata, request_headers, key_prefix, completion_window, window_seconds, status, expires_at
      )
      select
        ${batch.id}::uuid, f.tenant_id, ${batch.kind}, ${batch.operation}, ${batch.endpoint}, ${batch.apiKeyId}::uuid, f.id,
        ${batch.outputFileId}::uuid, ${batch.errorFileId}::uuid, ${batch.outputTtlSeconds}::integer, ${batch.metadata}::jsonb,
        ${batch.requestHeaders}::jsonb,
        coalesce(${batch.keyPrefix}::text, encode(f.sha256, 'hex')), ${batch.completionWindow}, ${batch.windowSeconds}::integer,
        'validating', now() + make_interval(secs => ${batch.windowSeconds}::integer)
      from files f
      where f.id = ${batch.inputFileId}::uuid and f.tenant_id = ${batch.tenantId}
        and f.status = ${seal === null ? 'processed' : 'internal'} and (f.expires_at is null or f.expires_at > now())
        -- Until this commit the input must not go: its deletion waits.
      for share of f
      returning ${batchColumns}
    `.execute(transaction)
    if (rows.length > 0) {
      await sql`
        insert into files (id, tenant_id, purpose, filename, status)
        select i.id, ${batch.tenantId}, 'batch_output', i.filename, 'writing'
        from unnest(
          ${[batch.outputFileId, batch.errorFileId]}::uuid[],
          ${[`batch_${hex(batch.id)}_output.jsonl`, `batch_${hex(batch.id)}_error.jsonl`]}::text[]
        ) as i (id, filename)
      `.execute(transaction)
    }
    return rows[0] ?? null
  })
}

function hex(id: string): string {
  return id.replaceAll('-', '')
}

/** A tenant's batch; null: unknown, or another's. */
export async function readBatch(
  db: Db,
  tenantId: string,
  kind: BatchRow['kind'],
  id: string,
): Promise<BatchRow | null> {
  const { rows } = await sql<BatchRow>`
    select ${batchColumns} from batches b where b.id = ${id}::uuid and b.tenant_id = ${tenantId} and b.kind = ${kind}
  `.execute(db)
  return rows[0] ?? null
}

export interface BatchFilter {
  tenantId: string
  kind: BatchRow['kind']
  /** The batch that the page follows, or comes before; null: the newest ones. */
  from: string | null
  /** The page before `from` instead of the one after it. */
  backward: boolean
  limit: number
}

/** A page of a tenant's batches, newest first. Null: the batch of `from` is not there. */
export async function listBatches(db: Db, filter: BatchFilter): Promise<BatchRow[] | null> {
  const { tenantId, kind, from, backward, limit } = filter
  if (from !== null && (await readBatch(db, tenantId, kind, from)) === null) return null
  const beyond =
    from === null
      ? sql`true`
      : sql`(b.created_at, b.id) ${sql.raw(backward ? '>' : '<')}
          (select s.created_at, s.id from batches s where s.id = ${from}::uuid)`
  const order = backward ? sql`b.created_at, b.id` : sql`b.created_at desc, b.id desc`
  const { rows } = await sql<BatchRow>`
    select ${batchColumns} from batches b
    where b.tenant_id = ${tenantId} and b.kind = ${kind} and ${beyond}
    order by ${order} limit ${limit}
  `.execute(db)
  return backward ? rows.toReversed() : rows
}

/** Begins the end of a batch; one that ends already, or has ended, stays as it is. `changed`: whether this did it. */
export async function requestCancel(
  db: Db,
  tenantId: string,
  kind: BatchRow['kind'],
  id: string,
): Promise<{ batch: BatchRow; changed: boolean } | null> {
  const { rows } = await sql<BatchRow>`
    update batches b set status = 'cancelling', ending = 'cancelled', cancelling_at = now(), wake_at = now()
    where b.id = ${id}::uuid and b.tenant_id = ${tenantId} and b.kind = ${kind} and b.status in ('validating', 'in_progress')
    returning ${batchColumns}
  `.execute(db)
  if (rows[0] !== undefined) return { batch: rows[0], changed: true }
  const batch = await readBatch(db, tenantId, kind, id)
  return batch === null ? null : { batch, changed: false }
}

/** Forgets a batch that has ended, its lines and its results. `ended` false: it runs, and nothing was done. */
export function deleteBatch(
  db: Db,
  tenantId: string,
  kind: BatchRow['kind'],
  id: string,
): Promise<{ ended: boolean } | null> {
  return db.transaction().execute(async (transaction) => {
    const { rows } = await sql<BatchRow>`
      select ${batchColumns} from batches b
      where b.id = ${id}::uuid and b.tenant_id = ${tenantId} and b.kind = ${kind} for update
    `.execute(transaction)
    const [batch] = rows
    if (batch === undefined) return null
    if (batch.ended_at === null) return { ended: false }
    await sql`delete from batch_lines where batch_id = ${id}::uuid`.execute(transaction)
    await dropBatch(transaction, batch)
    return { ended: true }
  })
}

/** Input files of a tenant are the tenant's and stay; what came with the batch goes with it. Their content is left to the sweep. */
async function dropBatch(db: Db, batch: BatchRow): Promise<void> {
  const { id, kind, input_file_id: input, output_file_id: output, error_file_id: errors } = batch
  await expireFiles(db, kind === 'anthropic' ? [input, output, errors] : [output, errors])
  await sql`delete from batches where id = ${id}::uuid`.execute(db)
}

/** Lines of one statement. */
const sweptLines = 5_000

/**
 * Deletes a batch that ended longer ago than the retention: its lines within bounds, and once there are none, the batch. `count` is 0 while
 * lines are left.
 */
export function sweepBatches(
  db: Db,
  retentionSeconds: number,
  { bytes = sweepBytes, rows: lines = sweptLines, skip = [] }: Partial<SweepBounds> = {},
): Promise<SweptRows> {
  return db.transaction().execute(async (transaction) => {
    const { rows } = await sql<BatchRow>`
      select ${batchColumns} from batches b
      where b.ended_at < now() - make_interval(secs => ${retentionSeconds}::integer) and b.id <> all(${skip}::uuid[])
      order by b.ended_at limit 1
      for update skip locked
    `.execute(transaction)
    const [batch] = rows
    if (batch === undefined) return { count: 0, more: false }
    const left = await sweepLines(transaction, batch.id, lines, bytes)
    if (left) return { count: 0, more: true }
    await dropBatch(transaction, batch)
    return { count: 1, more: true }
  })
}

/** Deletes lines of a batch, and says whether there may be more. */
async function sweepLines(db: Db, batchId: string, limit: number, bytes: number): Promise<boolean> {
  const { rows } = await sql<{ picked: number; swept: number }>`
    with lines as (
      select l.line, coalesce(pg_column_size(l.request), 0)::bigint as bytes from batch_lines l
      where l.batch_id = ${batchId}::uuid order by l.line limit ${limit}
    ),
    sized as (select line, sum(bytes) over (order by line) - bytes as before from lines),
    gone as (
      delete from batch_lines l using sized s
      where l.batch_id = ${batchId}::uuid and l.line = s.line and s.before < ${bytes}
      returning 1
    )
    select (select count(*) from lines) as picked, (select count(*) from gone) as swept
  `.execute(db)
  return swept(rows[0], limit).more
}

/** The batch that {@link sweepBatches} would take first. */
export async function nextSweptBatch(
  db: Db,
  retentionSeconds: number,
  skip: readonly string[],
): Promise<string | null> {
  const { rows } = await sql<{ id: string }>`
    select b.id from batches b
    where b.ended_at < now() - make_interval(secs => ${retentionSeconds}::integer) and b.id <> all(${skip}::uuid[])
    order by b.ended_at limit 1
  `.execute(db)
  return rows[0]?.id ?? null
}

/** A result as `/lines` shows it. */
export interface BatchLineResult {
  line: number
  custom_id: string
  job_id: string
  outcome: 'succeeded' | 'failed' | 'cancelled' | 'expired'
  replayed: boolean
  done_number: number
  /** The line of the output or error file, without its end. Null: the file is gone. */
  text: Buffer | null
}

/** Results in the order in which they were written, after the given number. With about `maxBytes` at most, but at least one. */
export async function readResults(
  db: Db,
  batch: BatchRow,
  after: number,
  limit: number,
  maxBytes: number,
): Promise<BatchLineResult[]> {
  const { rows } = await sql<BatchLineResult>`
    with page as (
      select l.*, sum(l.length) over (order by l.done_number) - l.length as before
      from batch_lines l
      where l.batch_id = ${batch.id}::uuid and l.state = 'done' and l.done_number > ${after} and l.done_number <= ${after + limit}
    )
    select
      l.line, l.custom_id, l.job_id, l.outcome, l.replayed, l.done_number,
      substring(p.body from l.part_offset + 1 for l.length) as text
    from page l
    left join file_parts p
      on p.file_id = case when l.in_errors then ${batch.error_file_id}::uuid else ${batch.output_file_id}::uuid end
      and p."position" = l.part_position
    where l.before < ${maxBytes}
    order by l.done_number
  `.execute(db)
  return rows
}
