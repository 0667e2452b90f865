import { randomBytes, randomUUID } from 'node:crypto'
import {
  deleteJobs,
  endWithPieces,
  PiecesMissingError,
  pieceBytes,
  readAnswerPiece,
  readStreams,
  readWholeAnswer,
  sweepLargeAnswers,
  writeAnswerPieces,
} from '@askonce/store'
import { describe, expect, it } from 'vitest'
import {
  decisionRequest,
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

/** Writes it as one worker brings it; its id. */
async function write(jobId: string, attempt = 1, id = randomUUID() as string): Promise<string> {
  await writeAnswerPieces(store.db, id, { jobId, attempt }, answer)
  return id
}

const end = (jobId: string, responsePieces: string, attempt = 1) =>
  endWithPieces(
    store.db,
    ending(jobId, 'answer', {
      attempt,
      response: null,
      responsePieces,
      responseBytes: answer.length,
      contentType: 'text/event-stream',
    }),
    uncertainTtlSeconds,
  )

async function readAll(id: string): Promise<Buffer | null> {
  return readWholeAnswer(store.db, { response: null, response_bytes: answer.length, response_pieces: id })
}

const pieces = async (id: string): Promise<number> =>
  Number((await store.query('select count(*) as n from answer_pieces where answer = $1', [id]))[0]?.['n'])
const checkNow = (id: string): Promise<unknown> =>
  store.query('update large_answers set check_at = now() where id = $1', [id])
const lose = (jobId: string): Promise<unknown> =>
  store.query(`update attempts set finished_at = now(), outcome = 'lost', billing = 'maybe' where job_id = $1`, [jobId])

async function sweepAll(): Promise<void> {
  while ((await sweepLargeAnswers(store.db, 100, 2 * pieceBytes)).more);
}

describe('an answer in pieces', () => {
  it('is nothing before its end, and whole after it', async () => {
    const job = await insertRunning(store, {})
    const id = await write(job)
    expect(await jobRow(store, job)).toMatchObject({ state: 'running', response: null, response_pieces: null })
    expect(await end(job, id)).toMatchObject({ movedTo: 'succeeded', answerAttempt: 1 })
    expect(await jobRow(store, job)).toMatchObject({
      state: 'succeeded',
      response: null,
      response_pieces: id,
      response_bytes: answer.length,
      answer_attempt: 1,
    })
    expect((await readAll(id))?.equals(answer)).toBe(true)
    // From any byte on, within a piece and at its edges.
    for (const from of [1, pieceBytes - 1, pieceBytes, answer.length - 1]) {
      const rest = answer.subarray(from, Math.min(answer.length, from - (from % pieceBytes) + pieceBytes))
      expect((await readAnswerPiece(store.db, id, from))?.equals(rest)).toBe(true)
    }
    expect(await readAnswerPiece(store.db, id, answer.length)).toBeNull()
  })

  it('is followed as a stream like any other', async () => {
    const job = await insertRunning(store, {})
    await end(job, await write(job))
    const read: Buffer[] = []
    for (let position = 0; position < answer.length;) {
      const [page] = await readStreams(store.db, [{ tenantId: 'default', jobId: job, attempt: 1, position }])
      expect(page).toMatchObject({ state: 'succeeded', attempt: 1, length: answer.length })
      read.push(page?.bytes ?? Buffer.alloc(0))
      position += page?.bytes.length ?? answer.length
    }
    expect(Buffer.concat(read).equals(answer)).toBe(true)
  })

  it('written half before a crash, and twice, is the same answer', async () => {
    const job = await insertRunning(store, {})
    const id = await write(job)
    await store.query('delete from answer_pieces where answer = $1 and "position" > 0', [id])
    await expect(end(job, id)).rejects.toThrow(PiecesMissingError)
    expect((await jobRow(store, job)).state).toBe('running')
    await write(job, 1, id)
    expect(await end(job, id)).toMatchObject({ answerAttempt: 1 })
    // The reply of the commit was lost: it is sent again.
    expect(await end(job, id)).toMatchObject({ recorded: false, answerAttempt: 1 })
    await sweepAll()
    expect((await readAll(id))?.equals(answer)).toBe(true)
  })

  it('is never mixed with other bytes that somebody brings for the same attempt', async () => {
    const job = await insertRunning(store, {})
    const first = await write(job)
    const second = randomUUID()
    await writeAnswerPieces(store.db, second, { jobId: job, attempt: 1 }, randomBytes(answer.length))
    expect(await end(job, first)).toMatchObject({ recorded: true })
    expect(await end(job, second)).toMatchObject({ recorded: false })
    await sweepAll()
    expect((await readAll(first))?.equals(answer)).toBe(true)
    expect(await pieces(second)).toBe(0)
  })
})

describe('the sweep of large answers', () => {
  it('leaves what is being written, what an open attempt may still bring, and what a live job has', async () => {
    const job = await insertRunning(store, {})
    const id = await write(job)
    await sweepAll()
    await checkNow(id)
    await sweepAll()
    expect(await pieces(id)).toBe(4)
    await end(job, id)
    await checkNow(id)
    await sweepAll()
    expect((await readAll(id))?.equals(answer)).toBe(true)
  })

  it('takes those of an attempt that ended otherwise, and those that the job did not take', async () => {
    const lost = await insertRunning(store, {})
    const ofLost = await write(lost)
    await lose(lost)
    await checkNow(ofLost)
    const late = await insertRunning(store, { attempt: 2, paid: 2, tries: 2 }, { attempt: 2 })
    await insertAttempt(store, late, { attempt: 1 })
    const [one, two] = [await write(late, 1), await write(late, 2)]
    await end(late, two, 2)
    expect(await end(late, one, 1)).toMatchObject({ answerAttempt: 2 })
    await sweepAll()
    expect(await pieces(ofLost)).toBe(0)
    expect(await pieces(one)).toBe(0)
    expect((await readAll(two))?.equals(answer)).toBe(true)
    expect(await store.query('select from large_answers where id = any($1)', [[ofLost, one]])).toEqual([])
  })

  it('takes those of a deleted job at once, and the reader meets a gap, not a shorter answer', async () => {
    const job = await insertRunning(store, {})
    const id = await write(job)
    await end(job, id)
    expect(await deleteJobs(store.db, decisionRequest([job]), false)).toMatchObject([{ allowed: true }])
    await sweepAll()
    expect(await pieces(id)).toBe(0)
    expect(await readAll(id)).toBeNull()
  })

  it('waits for an end that is under way, and a writer that comes too late writes everything again', async () => {
    const job = await insertRunning(store, {})
    const id = await write(job)
    await lose(job)
    await checkNow(id)
    const other = await openTransaction(store, 'select from large_answers where id = $1 for update', [id])
    await sweepLargeAnswers(store.db, 100, 2 * pieceBytes)
    expect(await pieces(id)).toBe(4)
    await other.finish('commit')
    await sweepAll()
    await expect(end(job, id)).rejects.toThrow(PiecesMissingError)
    // Without its row no piece can be left behind.
    await expect(
      store.query(`insert into answer_pieces (answer, "position", body) values ($1, 0, 'x')`, [id]),
    ).rejects.toThrow(/foreign key/)
    await write(job, 1, id)
    expect(await end(job, id)).toMatchObject({ recorded: true })
  })
})
