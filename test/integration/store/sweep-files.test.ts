import { createHash, randomUUID } from 'node:crypto'
import {
  appendUpload,
  beginUpload,
  createBatch,
  dropUpload,
  finishUpload,
  sweepBatches,
  sweepFiles,
  type BatchRow,
  type NewBatch,
} from '@askonce/store'
import { beforeEach, describe, expect, it } from 'vitest'
import { openTransaction, useStore } from './fixture.ts'

const store = useStore()
const day = 86_400

beforeEach(async () => {
  await store.query('truncate files, file_parts, batches')
})

/** An upload of which two pieces have come. */
async function upload(): Promise<string> {
  const id = randomUUID()
  await beginUpload(store.db, { id, tenantId: 'default', purpose: 'batch', filename: 'input.jsonl' })
  await appendUpload(store.db, id, 0, Buffer.from('one\n'))
  await appendUpload(store.db, id, 4, Buffer.from('two\n'))
  return id
}

/** A file that is whole; `ttlSeconds` null: it does not expire. */
async function file(ttlSeconds: number | null = null): Promise<string> {
  const id = await upload()
  const sha256 = createHash('sha256').update('one\ntwo\n').digest()
  await finishUpload(store.db, { id, purpose: 'batch', filename: 'input.jsonl', bytes: 8, sha256, ttlSeconds })
  return id
}

function batchOf(inputFileId: string): NewBatch {
  return {
    id: randomUUID(),
    tenantId: 'default',
    kind: 'openai',
    operation: 'chat.completions',
    endpoint: '/v1/chat/completions',
    apiKeyId: randomUUID(),
    inputFileId,
    outputFileId: randomUUID(),
    errorFileId: randomUUID(),
    outputTtlSeconds: null,
    metadata: null,
    requestHeaders: null,
    keyPrefix: null,
    completionWindow: '24h',
    windowSeconds: day,
    seal: null,
  }
}

const lastSeen = (id: string, secondsAgo: number): Promise<unknown> =>
  store.query(`update files set touched_at = now() - $1 * interval '1 second' where id = $2`, [secondsAgo, id])
const expire = (id: string): Promise<unknown> =>
  store.query(`update files set expires_at = now() - interval '1 second' where id = $1`, [id])
const kept = async (): Promise<string[]> =>
  (await store.query<{ id: string }>('select id from files')).map(({ id }) => id)
/** Files that have content: a piece without its file would stay for ever. */
const withContent = async (): Promise<string[]> =>
  (await store.query<{ id: string }>('select distinct file_id as id from file_parts')).map(({ id }) => id)

describe('sweepFiles', () => {
  it('deletes uploads of which nothing has come for a quarter of an hour, with their pieces, and no others', async () => {
    const [silent, slow] = [await upload(), await upload()]
    await lastSeen(silent, 901)
    await lastSeen(slow, 890)
    expect(await sweepFiles(store.db, 10)).toMatchObject({ count: 1 })
    expect(await kept()).toEqual([slow])
    expect(await withContent()).toEqual([slow])
  })

  it('tells a client that was silent for too long with its next piece, and with its end, that the upload is gone', async () => {
    const id = await upload()
    await lastSeen(id, 901)
    await sweepFiles(store.db, 10)
    expect(await appendUpload(store.db, id, 8, Buffer.from('three\n'))).toBe(false)
    const end = { id, purpose: 'batch', filename: 'f', bytes: 8, sha256: Buffer.alloc(32), ttlSeconds: null }
    expect(await finishUpload(store.db, end)).toBeNull()
    expect(await withContent()).toEqual([])
  })

  it('every piece is a sign of life', async () => {
    const id = await upload()
    await lastSeen(id, 901)
    await appendUpload(store.db, id, 8, Buffer.from('three\n'))
    expect(await sweepFiles(store.db, 10)).toMatchObject({ count: 0 })
    expect(await kept()).toEqual([id])
  })

  it('leaves an upload alone whose piece is being written', async () => {
    const id = await upload()
    await lastSeen(id, 901)
    const writing = await openTransaction(store, 'update files set touched_at = now() where id = $1', [id])
    expect(await sweepFiles(store.db, 10)).toMatchObject({ count: 0 })
    await writing.finish('commit')
    expect(await sweepFiles(store.db, 10)).toMatchObject({ count: 0 })
    expect(await kept()).toEqual([id])
  })

  it('deletes expired files with their content, and keeps those that do not expire or not yet', async () => {
    const [expired, young, lasting] = [await file(day), await file(day), await file()]
    await expire(expired)
    expect(await sweepFiles(store.db, 10)).toMatchObject({ count: 1 })
    expect((await kept()).toSorted()).toEqual([young, lasting].toSorted())
    expect((await withContent()).toSorted()).toEqual([young, lasting].toSorted())
  })

  it('keeps an expired file while a batch reads it, until that batch has ended', async () => {
    const id = await file(day)
    const batch = await createBatch(store.db, batchOf(id))
    await expire(id)
    expect(await sweepFiles(store.db, 10)).toMatchObject({ count: 0 })
    await store.query(
      `update batches set status = 'completed', in_progress_at = now(), finalizing_at = now(), ended_at = now()
       where id = $1`,
      [batch?.id],
    )
    expect(await sweepFiles(store.db, 10)).toMatchObject({ count: 1 })
    expect(await withContent()).toEqual([])
  })

  it('deletes no more than it is asked to', async () => {
    for (let index = 0; index < 5; index += 1) await expire(await file(day))
    expect(await sweepFiles(store.db, 3)).toMatchObject({ count: 3 })
    expect(await sweepFiles(store.db, 3)).toMatchObject({ count: 2 })
    expect(await sweepFiles(store.db, 3)).toMatchObject({ count: 0 })
  })
})

it('dropUpload takes an upload away at once, and never a file', async () => {
  const [begun, whole] = [await upload(), await file()]
  await dropUpload(store.db, begun)
  await dropUpload(store.db, whole)
  expect(await kept()).toEqual([whole])
  expect(await withContent()).toEqual([whole])
})

it('sweepBatches deletes a batch with its results once its retention is over, and leaves its input to its owner', async () => {
  const input = await file()
  const batches = [await createBatch(store.db, batchOf(input)), await createBatch(store.db, batchOf(input))]
  const end = (id: string | undefined, secondsAgo: number): Promise<unknown> =>
    store.query(
      `update batches set status = 'completed', in_progress_at = now(), finalizing_at = now(),
       ended_at = now() - $1 * interval '1 second' where id = $2`,
      [secondsAgo, id],
    )
  await end(batches[0]?.id, day + 1)
  await end(batches[1]?.id, day - 10)
  expect(await sweepBatches(store.db, day)).toMatchObject({ count: 1 })
  expect(await sweepBatches(store.db, day)).toMatchObject({ count: 0 })
  expect(await store.query('select id from batches')).toEqual([{ id: batches[1]?.id }])
  const { output_file_id: output, error_file_id: errors } = batches[1] as BatchRow
  await sweepFiles(store.db, 10)
  expect((await kept()).toSorted()).toEqual([input, output, errors].toSorted())
})
