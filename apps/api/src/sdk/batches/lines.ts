import { readResults, type BatchRow } from '@askonce/store'
import type { FastifyReply } from 'fastify'
import type { Parts } from '../../context.ts'

/** About so many bytes of results are in one page. */
const pageBytes = 8 * 1024 * 1024

/** A page of results in the order in which they came, as JSON; the text of each stands in it as it is in the file. */
export async function linesPage(
  parts: Parts,
  reply: FastifyReply,
  batch: BatchRow,
  after: number,
  limit: number,
): Promise<Buffer> {
  const rows = await parts.reads.run({ tenantId: batch.tenant_id, reply }, (db) =>
    readResults(db, batch, after, limit, pageBytes),
  )
  const last = rows.at(-1)?.done_number ?? after
  const pieces: Buffer[] = [Buffer.from('{"object":"list","data":[')]
  for (const [index, row] of rows.entries()) {
    const { line, custom_id, outcome, replayed, job_id, done_number, text } = row
    const head = JSON.stringify({
      object: 'batch.line',
      number: done_number,
      line,
      custom_id,
      outcome,
      replayed,
      job_id: outcome === 'succeeded' || outcome === 'failed' ? job_id : null,
    })
    pieces.push(
      Buffer.from(`${index === 0 ? '' : ','}${head.slice(0, -1)},"result":`),
      text ?? Buffer.from('null'),
      closing,
    )
  }
  const more = last < batch.done
  pieces.push(Buffer.from(`],"has_more":${more},"next_after":"${last}"}`))
  return Buffer.concat(pieces)
}

const closing = Buffer.from('}')
