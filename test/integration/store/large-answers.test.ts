import { randomBytes } from 'node:crypto'
import {
  deleteJob,
  endWithPieces,
  PiecesMissingError,
  pieceBytes,
  readAnswerPiece,
  readStreams,
  sweepLargeAnswers,
  writeAnswerPieces,
} from '@askonce/store'
import { describe, expect, it } from 'vitest'
import {
  ending,
  insertAttempt,
  insertRunning,
  jobRow,
  openTransaction,
  uncertainTtlSeconds,
  useStore,
} from './fixture.ts'

const store = useStore()

/** Some pieces and a bit. */
const answer = randomBytes(3 * pieceBytes + 17)

async function write(id: string, attempt = 1): Promise<void> {
  await writeAnswerPieces(store.db, { jobId: id, attempt }, answer)
}

const end = (id: string, attempt = 1) =>
  endWithPieces(
    store.db,
    ending(id, 'answer', { attempt, response: null, responseBytes: answer.length, contentType: 'text/event-stream' }),
    uncertainTtlSeconds,
  )

async function readAll(id: string, attempt = 1): Promise<Buffer | null> {
  const pieces: Buffer[] = []
  for (let from = 0; from < answer.length;) {
    const piece = await readAnswerPiece(store.db, id, attempt, from)
    if (piece === null) return null
    pieces.push(piece)
    from += piece.length
  }
  return Buffer.concat(pieces)
}

const pieces = async (id: string): Promise<number> =>
  Number((await store.query('select count(*) as n from answer_pieces where job_id = $1', [id]))[0]?.['n'])
const checkNow = (id: string): Promise<unknown> =>
  store.query('update large_answers set check_at = now() where job_id = $1', [id])

async function sweepAll(): Promise<void> {
  while ((await sweepLargeAnswers(store.db)) > 0);
}

describe('an answer in pieces', () => {
  it('is nothing before its end, and whole after it', async () => {
    const id = await insertRunning(store, {})
    await write(id)
    expect(await jobRow(store, id)).toMatchObject({ state: 'running', response: null, response_bytes: null })
    expect(await end(id)).toMatchObject({ movedTo: 'succeeded', answerAttempt: 1 })
    expect(await jobRow(store, id)).toMatchObject({
      state: 'succeeded',
      response: null,
      response_bytes: answer.length,
      answer_attempt: 1,
    })
    expect((await readAll(id))?.equals(answer)).toBe(true)
    // From any byte on, within a piece and at its edges.
    for (const from of [1, pieceBytes - 1, pieceBytes, answer.length - 1]) {
      const piece = await readAnswerPiece(store.db, id, 1, from)
      expect(
        piece?.equals(answer.subarray(from, Math.min(answer.length, from - (from % pieceBytes) + pieceBytes))),
      ).toBe(true)
    }
    expect(await readAnswerPiece(store.db, id, 1, answer.length)).toBeNull()
  })

  it('is followed as a stream like any other', async () => {
    const id = await insertRunning(store, {})
    await write(id)
    await end(id)
    const read: Buffer[] = []
    for (let position = 0; position < answer.length;) {
      const [page] = await readStreams(store.db, [{ jobId: id, attempt: 1, position }])
      expect(page).toMatchObject({ state: 'succeeded', attempt: 1, length: answer.length })
      read.push(page?.bytes ?? Buffer.alloc(0))
      position += page?.bytes.length ?? answer.length
    }
    expect(Buffer.concat(read).equals(answer)).toBe(true)
  })

  it('written twice, and half before a crash, is the same answer', async () => {
    const id = await insertRunning(store, {})
    await write(id)
    await store.query('delete from answer_pieces where job_id = $1 and "position" > 0', [id])
    await expect(end(id)).rejects.toThrow(PiecesMissingError)
    expect((await jobRow(store, id)).state).toBe('running')
    await write(id)
    expect(await end(id)).toMatchObject({ answerAttempt: 1 })
    expect((await readAll(id))?.equals(answer)).toBe(true)
  })
})

describe('the sweep of large answers', () => {
  it('leaves what is being written, what an open attempt may still bring, and what a live job has', async () => {
    const id = await insertRunning(store, {})
    await write(id)
    await sweepAll()
    await checkNow(id)
    await sweepAll()
    expect(await pieces(id)).toBe(4)
    await end(id)
    await checkNow(id)
    await sweepAll()
    expect((await readAll(id))?.equals(answer)).toBe(true)
  })

  it('takes those of an attempt that ended otherwise, and those that the job did not take', async () => {
    const lost = await insertRunning(store, {})
    await write(lost)
    await store.query(
      `update attempts set finished_at = now(), outcome = 'lost', billing = 'maybe' where job_id = $1`,
      [lost],
    )
    await checkNow(lost)
    const late = await insertRunning(store, { attempt: 2, paid: 2, tries: 2 }, { attempt: 2 })
    await insertAttempt(store, late, { attempt: 1 })
    await write(late, 1)
    await write(late, 2)
    await end(late, 2)
    expect(await end(late, 1)).toMatchObject({ answerAttempt: 2 })
    await sweepAll()
    expect(await pieces(lost)).toBe(0)
    expect(await pieces(late)).toBe(4)
    expect((await readAll(late, 2))?.equals(answer)).toBe(true)
  })

  it('takes those of a deleted job at once, and the reader meets a gap, not a shorter answer', async () => {
    const id = await insertRunning(store, {})
    await write(id)
    await end(id)
    expect(await deleteJob(store.db, 'default', id)).toMatchObject({ deleted: true })
    await sweepAll()
    expect(await pieces(id)).toBe(0)
    expect(await readAll(id)).toBeNull()
  })

  it('waits for an end that is under way, and the end for a sweep', async () => {
    const id = await insertRunning(store, {})
    await write(id)
    await store.query(
      `update attempts set finished_at = now(), outcome = 'lost', billing = 'maybe' where job_id = $1`,
      [id],
    )
    await checkNow(id)
    const other = await openTransaction(store, 'select from large_answers where job_id = $1 for update', [id])
    await sweepAll()
    expect(await pieces(id)).toBe(4)
    await other.finish('commit')
    await sweepAll()
    await expect(end(id)).rejects.toThrow(PiecesMissingError)
  })
})
