import { randomBytes, randomUUID } from 'node:crypto'
import {
  appendStreamChunks,
  appendUpload,
  beginUpload,
  createBatch,
  finishUpload,
  sweepExpired,
  sweepFiles,
  sweepsOf,
  sweepStreamChunks,
  type Swept,
} from '@askonce/store'
import { beforeEach, describe, expect, it } from 'vitest'
import { inSeconds, insertJob, useStore } from './fixture.ts'

const mib = 1024 * 1024
/** One connection, so that its time limit is that of every statement. */
const store = useStore({ poolSize: 1 })
const kept = { ledgerSeconds: 86_400, batchSeconds: 86_400 }

beforeEach(async () => {
  await store.ownQuery("set statement_timeout = '30s'")
  await store.query('drop trigger if exists slow on jobs')
  await store.query(
    'truncate jobs, ready, expiries, job_lists, requests, answers, files, file_parts, batches, batch_lines, stream_chunks',
  )
})

const expired = (key: string, bytes: number, secondsAgo = 10): Promise<unknown> =>
  insertJob(store, {
    idempotency_key: key,
    state: 'failed',
    request: randomBytes(bytes),
    expires_at: inSeconds(-secondsAgo),
  })

const keys = async (): Promise<string[]> =>
  (await store.query<{ key: string }>('select idempotency_key as key from jobs order by 1')).map(({ key }) => key)

/** Deleting a job whose key begins with `slow` takes this long; with `bad`, it fails. */
async function resist(ms: number): Promise<void> {
  await store.query(`
    create or replace function resist() returns trigger language plpgsql as $$
    begin
      if old.idempotency_key like 'slow%' then perform pg_sleep(${ms / 1000}); end if;
      if old.idempotency_key like 'bad%' then raise exception 'cannot go' using errcode = 'XX001'; end if;
      return old;
    end $$`)
  await store.query('create trigger slow before delete on jobs for each row execute function resist()')
}

/** Runs a sweep until it says that there is no more; what it could not delete, and the rounds that it took. */
async function drain(what: Swept, most = 100): Promise<{ skipped: string[]; rounds: number }> {
  const sweep = sweepsOf(store.db, kept)[what]
  const skipped: string[] = []
  for (let rounds = 1; rounds <= most; rounds += 1) {
    const round = await sweep.run()
    if (round.skipped !== null) skipped.push(round.skipped.id)
    if (!round.more) return { skipped, rounds }
  }
  throw new Error(`not done after ${most} rounds`)
}

describe('a statement takes so many bytes, as they are stored', () => {
  it('of jobs, the oldest first, and one in any case', async () => {
    for (let index = 0; index < 6; index += 1) await expired(`job ${index}`, 2 * mib, 100 - index)
    const bytes = 5 * mib
    expect(await sweepExpired(store.db, 1_000, { bytes })).toEqual({ count: 3, more: true })
    expect(await keys()).toEqual(['job 3', 'job 4', 'job 5'])
    expect(await sweepExpired(store.db, 1_000, { bytes: 1 })).toEqual({ count: 1, more: true })
    expect(await sweepExpired(store.db, 1_000, { bytes })).toEqual({ count: 2, more: false })
  })

  it('of chunks of streams', async () => {
    const chunks = Array.from({ length: 5 }, (_, index) => ({
      jobId: randomUUID(),
      attempt: 1,
      position: index,
      body: randomBytes(mib),
    }))
    await appendStreamChunks(store.db, chunks)
    await store.query("update stream_chunks set created_at = now() - interval '1 hour'")
    expect(await sweepStreamChunks(store.db, 1_000, 2 * mib + mib / 2)).toEqual({ count: 3, more: true })
    expect(await sweepStreamChunks(store.db, 1_000, 2 * mib + mib / 2)).toEqual({ count: 2, more: false })
  })

  it('of a file, whose row goes with its last piece; nothing can be added meanwhile, and nobody sees it', async () => {
    const id = randomUUID()
    await beginUpload(store.db, { id, tenantId: 'default', purpose: 'batch', filename: 'large' })
    for (let index = 0; index < 4; index += 1) await appendUpload(store.db, id, index * mib, randomBytes(mib))
    await store.query("update files set touched_at = now() - interval '1 hour'")
    const bytes = mib + mib / 2
    expect(await sweepFiles(store.db, 10, { bytes })).toEqual({ count: 0, more: true })
    expect(await appendUpload(store.db, id, 4 * mib, Buffer.from('late'))).toBe(false)
    const end = { id, purpose: 'batch', filename: 'large', bytes: 4 * mib, sha256: randomBytes(32), ttlSeconds: null }
    expect(await finishUpload(store.db, end)).toBeNull()
    expect(await sweepFiles(store.db, 10, { bytes })).toEqual({ count: 1, more: false })
    expect(await store.query('select 1 from file_parts')).toEqual([])
  })

  it('of a batch, which goes with its last line; its results go with the files', async () => {
    const input = randomUUID()
    await beginUpload(store.db, { id: input, tenantId: 'default', purpose: 'batch', filename: 'input' })
    await appendUpload(store.db, input, 0, Buffer.from('x'))
    const sha256 = randomBytes(32)
    await finishUpload(store.db, { id: input, purpose: 'batch', filename: 'input', bytes: 1, sha256, ttlSeconds: null })
    const batch = await createBatch(store.db, {
      id: randomUUID(),
      tenantId: 'default',
      kind: 'openai',
      operation: 'chat.completions',
      endpoint: '/v1/chat/completions',
      apiKeyId: randomUUID(),
      inputFileId: input,
      outputFileId: randomUUID(),
      errorFileId: randomUUID(),
      outputTtlSeconds: null,
      metadata: null,
      keyPrefix: null,
      requestHeaders: null,
      completionWindow: '24h',
      windowSeconds: 86_400,
      seal: null,
    })
    await store.query(
      `insert into batch_lines (batch_id, line, custom_id, fingerprint, model, lane, request, job_id, state)
       select $1, n, 'line ' || n, sha256('x'), 'm', 'l', 'x', gen_random_uuid(), 'ready' from generate_series(1, 2500) n`,
      [batch?.id],
    )
    await store.query(`update batches set status = 'failed', ended_at = now() - interval '2 days' where id = $1`, [
      batch?.id,
    ])
    // Two and a half thousand lines, a thousand at a time, and the look that finds no more.
    expect(await drain('batches')).toEqual({ skipped: [], rounds: 4 })
    expect(await store.query('select 1 from batches')).toEqual([])
    expect(await store.query('select 1 from batch_lines')).toEqual([])
    await drain('files')
    expect(await store.query<{ id: string }>('select id from files')).toEqual([{ id: input }])
  })
})

describe('a statement that takes longer than it may', () => {
  it('is tried again with half as much until it fits, and everything goes', async () => {
    for (let index = 0; index < 16; index += 1) await expired(`slow ${index}`, 10)
    await resist(60)
    // Sixteen of them are too many, four are not.
    await store.ownQuery("set statement_timeout = '400ms'")
    expect((await drain('jobs')).skipped).toEqual([])
    expect(await keys()).toEqual([])
  })

  it('never keeps one that cannot go even alone before those behind it, nor does one that Postgres cannot delete', async () => {
    await expired('slow', 10, 100)
    await expired('bad', 10, 99)
    for (let index = 0; index < 20; index += 1) await expired(`good ${index}`, 10)
    await resist(1_000)
    await store.ownQuery("set statement_timeout = '200ms'")
    expect((await drain('jobs')).skipped).toHaveLength(2)
    expect(await keys()).toEqual(['bad', 'slow'])
  })
})
