import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import {
  beatWorker,
  type Beat,
  type BeatSession,
  markWorkerDead,
  openDatabase,
  readBeats,
  readOpenAttempts,
  readOverdueAttempts,
  registerWorker,
  retireWorker,
  Session,
  sweepWorkers,
} from '@askonce/store'
import { startTcpProxy } from '@askonce/testkit'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addWorker, inSeconds, insertAttempt, insertJob, insertRunning, useStore } from './fixture.ts'

const store = useStore()

beforeEach(async () => {
  await store.query('truncate workers, jobs, attempts, open_attempts')
})

const day = 86_400

async function die(worker: string, secondsAgo: number): Promise<void> {
  await store.query(
    `update workers set dead = true, died_at = now() - $2::float8 * interval '1 second' where id = $1`,
    [worker, secondsAgo],
  )
}

const beatsOf = async (): Promise<Beat[]> => (await readBeats(store.db)).beats

describe('a worker', () => {
  it('is registered once; again changes nothing', async () => {
    const worker = { id: randomUUID(), host: 'a', pid: 7, version: '1.2.3' }
    await registerWorker(store.db, worker)
    await beatWorker(store.db, worker.id)
    await registerWorker(store.db, { ...worker, host: 'b' })
    expect(await store.query('select * from workers')).toMatchObject([
      { ...worker, beat: 1, dead: false, died_at: null },
    ])
  })

  it('beats until it is declared dead, and never again', async () => {
    const id = await addWorker(store)
    expect([await beatWorker(store.db, id), await beatWorker(store.db, id)]).toEqual([true, true])
    expect(await beatsOf()).toEqual([{ id, beat: 2, session: null, connected: false }])
    expect(await markWorkerDead(store.db, id, 2)).toBe(true)
    expect(await beatWorker(store.db, id)).toBe(false)
    await registerWorker(store.db, { id, host: 'a', pid: 7, version: '1' })
    expect(await beatWorker(store.db, id)).toBe(false)
    expect(await beatsOf()).toEqual([])
  })

  it('is not declared dead by one who saw another beat, or twice', async () => {
    const id = await addWorker(store)
    await beatWorker(store.db, id)
    expect(await markWorkerDead(store.db, id, 0)).toBe(false)
    expect(await markWorkerDead(store.db, id, 2)).toBe(false)
    expect(await markWorkerDead(store.db, id, 1)).toBe(true)
    expect(await markWorkerDead(store.db, id, 1)).toBe(false)
    expect(await markWorkerDead(store.db, randomUUID(), 0)).toBe(false)
  })

  it('is not declared dead while it beats, whoever is first', async () => {
    for (let round = 0; round < 20; round += 1) {
      const id = await addWorker(store)
      const [beaten, dead] = await Promise.all([beatWorker(store.db, id), markWorkerDead(store.db, id, 0)])
      expect(beaten).toBe(!dead)
    }
  })

  it('that retires is dead at once; its beat does not matter', async () => {
    const id = await addWorker(store)
    await beatWorker(store.db, id)
    await retireWorker(store.db, id)
    const [row] = await store.query<{ dead: boolean; died_at: Date }>('select dead, died_at from workers')
    expect(row?.dead).toBe(true)
    await retireWorker(store.db, id)
    expect(await store.query('select died_at from workers')).toEqual([{ died_at: row?.died_at }])
  })

  it('that was swept or never registered cannot beat', async () => {
    expect(await beatWorker(store.db, randomUUID())).toBe(false)
  })
})

describe('the session of its beats', () => {
  const leaseMs = 6_000
  const opened: Session[] = []
  afterEach(async () => {
    await Promise.all(opened.splice(0).map((session) => session.close()))
  })
  /** A session as a worker has one, and a beat in it. */
  const beating = async (url = store.url): Promise<{ id: string; session: Session; beat: () => Promise<boolean> }> => {
    const session = new Session({ url, name: 'beats', queryTimeoutMs: 5_000 })
    opened.push(session)
    await vi.waitUntil(() => session.connected, 10_000)
    const id = randomUUID()
    const of = (): BeatSession => ({ localEnd: session.localEnd, leaseMs })
    await registerWorker(session.db, { id, host: 'a', pid: 7, version: '1' }, of())
    return { id, session, beat: () => beatWorker(session.db, id, of()) }
  }
  const pidOf = async ({ db }: Session): Promise<number> =>
    (await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(db)).rows[0]?.pid as number
  const goneBy = (pid: number): Promise<boolean> =>
    vi.waitUntil(
      async () => (await store.query('select from pg_stat_activity where pid = $1', [pid])).length === 0,
      10_000,
    )

  it('is named at registration and by every beat, and is seen while it exists', async () => {
    const { id, session, beat } = await beating()
    const pid = await pidOf(session)
    expect(await beatsOf()).toEqual([{ id, beat: 0, session: pid, connected: true }])
    await beat()
    expect(await beatsOf()).toEqual([{ id, beat: 1, session: pid, connected: true }])
    const next = await beating()
    await beatWorker(next.session.db, id, { localEnd: next.session.localEnd, leaseMs })
    expect(await beatsOf()).toContainEqual({ id, beat: 2, session: await pidOf(next.session), connected: true })
  })

  it('counts as abandoned where nobody said farewell, and by no other end', async () => {
    const { id, session, beat } = await beating()
    const pid = await pidOf(session)
    const before = await readBeats(store.db)
    // As the kernel closes the sockets of a killed process.
    const { stream } = (session as unknown as { client: { connection: { stream: Socket } } }).client.connection
    stream.destroy()
    await goneBy(pid)
    const after = await readBeats(store.db)
    expect(after.abandoned - before.abandoned).toBe(1)
    expect(after.beats).toEqual([{ id, beat: 0, session: pid, connected: false }])

    await vi.waitUntil(() => session.connected, 10_000)
    await beat()
    const next = await pidOf(session)
    expect(await beatsOf()).toEqual([{ id, beat: 1, session: next, connected: true }])
    await store.query('select pg_terminate_backend($1)', [next])
    await goneBy(next)
    await vi.waitUntil(() => session.connected, 10_000)
    const last = await pidOf(session)
    await session.close()
    await goneBy(last)
    expect((await readBeats(store.db)).abandoned).toBe(after.abandoned)
  })

  it('tells nothing behind a proxy, or where the server gives up silent clients within the lease', async () => {
    const proxy = await startTcpProxy(Number(new URL(store.url).port))
    const behind = new URL(store.url)
    behind.port = String(proxy.port)
    const impatient = new URL(store.url)
    impatient.searchParams.set('options', '-c tcp_user_timeout=5000')
    const alert = new URL(store.url)
    alert.searchParams.set('options', '-c tcp_keepalives_idle=3 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3')
    for (const { href } of [behind, impatient, alert]) await beating(href.replaceAll('+', '%20'))
    expect((await beatsOf()).map(({ session, connected }) => [session, connected])).toEqual(
      Array.from({ length: 3 }, () => [null, false]),
    )
    await Promise.all(opened.splice(0).map((session) => session.close()))
    await proxy.close()
  })

  it('is asked for once more by the mark', async () => {
    const { id, session } = await beating()
    const pid = await pidOf(session)
    expect(await markWorkerDead(store.db, id, 0, pid)).toBe(false)
    await session.close()
    await goneBy(pid)
    expect(await markWorkerDead(store.db, id, 0, pid + 1)).toBe(false)
    expect(await markWorkerDead(store.db, id, 1, pid)).toBe(false)
    expect(await markWorkerDead(store.db, id, 0, pid)).toBe(true)
  })

  it('is seen by a role that may not look at the sessions of others', async () => {
    const { id, session } = await beating()
    const pid = await pidOf(session)
    await store.query(`create role onlooker login password 'looks'; grant select on workers to onlooker`)
    const other = new URL(store.url)
    other.username = 'onlooker'
    other.password = 'looks'
    const { db, close } = openDatabase({ url: other.href, name: 'onlooker', poolSize: 1 })
    expect((await readBeats(db)).beats).toEqual([{ id, beat: 0, session: pid, connected: true }])
    await close()
    await store.query('drop owned by onlooker; drop role onlooker')
  })
})

describe('readOpenAttempts', () => {
  it('tells a worker what the ledger holds open for it, and what it still owns', async () => {
    const [worker, other] = [await addWorker(store), await addWorker(store)]
    const mine = { worker_id: worker }
    const owned = await insertRunning(store, {}, mine)
    const cancelled = await insertJob(store, { state: 'cancelled', attempt: 1, paid: 1 })
    const answered = await insertJob(store, { state: 'succeeded', attempt: 2, answer_attempt: 2 })
    const overtaken = await insertJob(store, { state: 'running', attempt: 2 })
    const gone = randomUUID()
    for (const id of [cancelled, answered, overtaken, gone]) await insertAttempt(store, id, mine)
    await insertAttempt(store, randomUUID(), { ...mine, billing: 'maybe' })
    await insertRunning(store, {}, { worker_id: other })
    const open = await readOpenAttempts(store.db, worker, 0)
    expect(new Map(open.map(({ jobId, owned: own }) => [jobId, own]))).toEqual(
      new Map([
        [owned, true],
        [cancelled, false],
        [answered, false],
        [overtaken, false],
        [gone, false],
      ]),
    )
    expect(open.every(({ attempt }) => attempt === 1)).toBe(true)
  })

  it('looks at no claim before the first that may have something open', async () => {
    const worker = await addWorker(store)
    const of = (claim: number) => insertRunning(store, {}, { worker_id: worker, claim })
    const [, second, third] = [await of(1), await of(2), await of(3)]
    const open = await readOpenAttempts(store.db, worker, 2)
    expect(open.map(({ jobId, claim }) => [jobId, claim])).toEqual(
      expect.arrayContaining([
        [second, 2],
        [third, 3],
      ]),
    )
    expect(open).toHaveLength(2)
  })
})

describe('readOverdueAttempts', () => {
  it('tells of live workers whose attempt runs longer than its timeout and the grace', async () => {
    const [worker, dead] = [await addWorker(store), await addWorker(store)]
    await die(dead, 1)
    const since = (seconds: number, worker_id: string) => ({ worker_id, started_at: inSeconds(-seconds) })
    const overdue = await insertRunning(store, { timeout_ms: 60_000 }, since(121, worker))
    await insertRunning(store, { timeout_ms: 60_000 }, since(118, worker))
    await insertRunning(store, { timeout_ms: 600_000 }, since(121, worker))
    await insertRunning(store, { timeout_ms: 60_000 }, since(121, dead))
    const found = await readOverdueAttempts(store.db, 60_000, 10)
    expect(found).toMatchObject([{ jobId: overdue, attempt: 1, worker }])
    expect(found[0]?.runningMs).toBeGreaterThan(120_000)
    expect(await readOverdueAttempts(store.db, 60_000, 0)).toEqual([])
  })
})

describe('sweepWorkers', () => {
  it('removes those that are dead for a day and left nothing open', async () => {
    const [gone, recent, busy, alive] = await Promise.all([1, 2, 3, 4].map(() => addWorker(store)))
    await die(gone ?? '', day + 1)
    await die(recent ?? '', day - 60)
    await die(busy ?? '', day + 1)
    await store.query(`update workers set started_at = now() - interval '9 days', beat_at = now() - interval '9 days'`)
    await insertAttempt(store, randomUUID(), { worker_id: busy, started_at: inSeconds(-2 * day) })
    await insertAttempt(store, randomUUID(), { worker_id: gone, billing: 'billed' })
    expect(await sweepWorkers(store.db)).toBe(1)
    const left = await store.query<{ id: string }>('select id from workers')
    expect(left.map(({ id }) => id).toSorted()).toEqual([recent ?? '', busy ?? '', alive ?? ''].toSorted())
  })
})
