import { sql } from 'kysely'
import { checked } from '../fragments.ts'
import { unnest } from '../rows.ts'
import type { BatchRow, Db } from '../tables.ts'
import { batchColumns } from './batches.ts'
import type { LeasedBatch } from './batch-scan.ts'

/** Size from which on a piece of an output file takes no further lines. */
const partBytes = 512 * 1024

/** The result of a line. */
export interface LineResult {
  line: number
  outcome: 'succeeded' | 'failed' | 'cancelled' | 'expired'
  inErrors: boolean
  /** With its end of line. */
  text: Buffer
  replayed: boolean
  /** What the job has cost, if this batch made it run. */
  inputTokens: number
  outputTokens: number
  costUsd: number
}

/**
 * Runs `work` in a transaction that holds the row of a batch whose results are not all written: writers of results take turns, and a
 * crash at any point leaves a line either as it was or written, marked and counted. `work` gets null when the batch has ended.
 */
export function withBatch<Result>(
  db: Db,
  batchId: string,
  work: (transaction: Db, batch: BatchRow | null) => Promise<Result>,
): Promise<Result> {
  return db.transaction().execute(async (transaction) => {
    const { rows } = await sql<BatchRow>`
      select ${batchColumns} from batches b
      where b.id = ${batchId}::uuid and b.status in ('in_progress', 'cancelling', 'finalizing')
      for update
    `.execute(transaction)
    return work(transaction, rows[0] ?? null)
  })
}

interface Placed extends LineResult {
  partPosition: number
  partOffset: number
}

/** Puts lines behind the end of a file, several to a piece. */
function place(results: readonly LineResult[], from: number): { placed: Placed[]; pieces: [number, Buffer][] } {
  const placed: Placed[] = []
  const pieces: [number, Buffer][] = []
  let position = from
  let texts: Buffer[] = []
  let size = 0
  const close = (): void => {
    if (size === 0) return
    pieces.push([position, Buffer.concat(texts)])
    position += size
    texts = []
    size = 0
  }
  for (const result of results) {
    placed.push(Object.assign({ partPosition: position, partOffset: size }, result))
    texts.push(result.text)
    size += result.text.length
    if (size >= partBytes) close()
  }
  close()
  return { placed, pieces }
}

/** Appends results to the files of a batch, marks their lines and counts them. Only within {@link withBatch}. */
export async function writeResults(db: Db, batch: BatchRow, results: readonly LineResult[]): Promise<void> {
  if (results.length === 0) return
  const good = place(
    results.filter(({ inErrors }) => !inErrors),
    batch.output_bytes,
  )
  const bad = place(
    results.filter(({ inErrors }) => inErrors),
    batch.error_bytes,
  )
  for (const [fileId, { pieces }] of [
    [batch.output_file_id, good],
    [batch.error_file_id, bad],
  ] as const) {
    for (const [position, body] of pieces) {
      await sql`
        insert into file_parts (file_id, "position", body) values (${fileId}::uuid, ${position}::bigint, ${body}::bytea)
      `.execute(db)
    }
  }
  const placed = [...good.placed, ...bad.placed].toSorted((a, b) => a.line - b.line)
  await sql`
    update batch_lines l set
      state = 'done', request = '', outcome = i.outcome, replayed = i.replayed, in_errors = i.in_errors,
      part_position = i.part_position, part_offset = i.part_offset, length = i.length,
      done_number = ${batch.done}::integer + i.number
    from ${unnest<Placed & { number: number }>(
      placed.map((result, index) => Object.assign({ number: index + 1 }, result)),
      {
        line: ['integer', (result) => result.line],
        outcome: ['text', (result) => result.outcome],
        replayed: ['boolean', (result) => result.replayed],
        in_errors: ['boolean', (result) => result.inErrors],
        part_position: ['bigint', (result) => result.partPosition],
        part_offset: ['integer', (result) => result.partOffset],
        length: ['integer', (result) => result.text.length - 1],
        number: ['integer', (result) => result.number],
      },
      'i',
    )}
    where l.batch_id = ${batch.id}::uuid and l.line = any(${placed.map(({ line }) => line)}::integer[])
      and ${checked(sql`l.line = i.line and l.state <> 'done'`)}
  `.execute(db)
  const count = (outcome: LineResult['outcome']): number => results.filter((line) => line.outcome === outcome).length
  const sum = (of: (line: LineResult) => number): number => results.reduce((total, line) => total + of(line), 0)
  await sql`
    update batches set
      done = done + ${results.length}, succeeded = succeeded + ${count('succeeded')}, failed = failed + ${count('failed')},
      cancelled = cancelled + ${count('cancelled')}, expired = expired + ${count('expired')},
      replayed = replayed + ${results.filter(({ replayed }) => replayed).length},
      output_bytes = output_bytes + ${bytesOf(good.placed)}::bigint, error_bytes = error_bytes + ${bytesOf(bad.placed)}::bigint,
      input_tokens = input_tokens + ${sum(({ inputTokens }) => inputTokens)}::bigint,
      output_tokens = output_tokens + ${sum(({ outputTokens }) => outputTokens)}::bigint,
      cost_usd = cost_usd + ${sum(({ costUsd }) => costUsd)}::numeric
    where id = ${batch.id}::uuid
  `.execute(db)
}

function bytesOf(placed: readonly Placed[]): number {
  return placed.reduce((total, { text }) => total + text.length, 0)
}

/** Every line is done, or the window has ended: no line is submitted any more. False: somebody else has the batch. */
export async function beginEnd(db: Db, { id, lease }: LeasedBatch, ending: 'completed' | 'expired'): Promise<boolean> {
  const { rows } = await sql`
    update batches set status = 'finalizing', ending = ${ending}, finalizing_at = now()
    where id = ${id}::uuid and lease = ${lease}::uuid and status = 'in_progress'
      and case when ${ending} = 'completed' then done = total else expires_at <= now() end
    returning id
  `.execute(db)
  return rows.length > 0
}

/**
 * Ends a batch whose lines are all done: its files with results are shown from this commit on, the empty ones are gone. False: a line
 * is not done, or it has ended already.
 */
export function endBatch(db: Db, batchId: string, retentionSeconds: number): Promise<boolean> {
  return db.transaction().execute(async (transaction) => {
    const { rows } = await sql<BatchRow>`
      update batches b set status = b.ending, ended_at = now(), lease = null, leased_until = null
      where b.id = ${batchId}::uuid and b.status in ('finalizing', 'cancelling') and b.done = b.total
      returning ${batchColumns}
    `.execute(transaction)
    const [batch] = rows
    if (batch === undefined) return false
    const shown = batch.kind === 'openai' ? 'processed' : 'internal'
    await sql`
      update files f set
        status = ${shown}, bytes = i.bytes,
        expires_at = case when ${shown} = 'processed' then
          now() + make_interval(secs => ${batch.output_ttl_seconds ?? retentionSeconds}::integer) end
      from unnest(
        ${[batch.output_file_id, batch.error_file_id]}::uuid[], ${[batch.output_bytes, batch.error_bytes]}::bigint[]
      ) as i (id, bytes)
      where f.id = i.id and i.bytes > 0
    `.execute(transaction)
    await sql`
      delete from files where id = any(${[batch.output_file_id, batch.error_file_id]}::uuid[]) and status = 'writing'
    `.execute(transaction)
    // What came with the batch has been read whole.
    if (batch.kind === 'anthropic') {
      await sql`delete from files where id = ${batch.input_file_id}::uuid`.execute(transaction)
      await sql`delete from file_parts where file_id = ${batch.input_file_id}::uuid`.execute(transaction)
    }
    return true
  })
}
