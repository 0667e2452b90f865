import { randomUUID } from 'node:crypto'
import {
  beatWorker,
  claimJobs,
  markWorkerDead,
  reclaimAttempts,
  retireWorker,
  stopLane,
  type Claim,
} from '@askonce/store'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import {
  addWorker,
  attemptRow,
  inSeconds,
  insertJob,
  jobRow,
  openTransaction,
  type OpenTransaction,
  uncertainTtlSeconds,
  untilBlocked,
  useStore,
} from './fixture.ts'

const store = useStore()
let worker = ''
/** A claim names a lane: each test has one of its own. */
let lane = ''
let number = 0
beforeAll(async () => {
  worker = await addWorker(store)
})
beforeEach(() => {
  lane = `l-${randomUUID().slice(0, 8)}`
})

const add = (columns: Parameters<typeof insertJob>[1] = {}): Promise<string> => insertJob(store, { lane, ...columns })

const claim = async (by = worker, places = 10): Promise<Claim[]> => {
  const turn = { tenant: '', credit: 0 }
  const request = { workerId: by, number: ++number, lane, places, turn, agedFirst: false, known: [] }
  return (await claimJobs(store.db, request)).claims
}

/** Jobs of the lane that a claim may find. */
const ready = async (): Promise<string[]> => {
  const rows = await store.query<{ job_id: string }>('select job_id from ready where lane = $1', [lane])
  return rows.map((row) => row.job_id)
}

/** An attempt that somebody is about to write under the number of the next claim: that claim waits, its worker locked. */
function holdAttempt(jobId: string): Promise<OpenTransaction> {
  return openTransaction(
    store,
    `insert into attempts (job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model, worker_id)
     values ($1, 1, 1, 'default', 'k', '', 'responses', 'l', 'm', $1)`,
    [jobId],
  )
}

/** Puts the lane into a state. */
async function setLane(state: string, until: number | null = null): Promise<void> {
  await store.query(
    `insert into lanes (name, state, reason, until) values ($1, $2, 'why', now() + $3::float8 * interval '1 second')`,
    [lane, state, until],
  )
}

describe('a claim', () => {
  it('starts the job and opens its attempt in one commit, with all that the call needs', async () => {
    const id = await add({
      attempt: 4,
      tries: 1,
      paid: 1,
      generation: 2,
      reruns: 3,
      run_at: inSeconds(-2),
      request: Buffer.from([0, 255, 10]),
      on_uncertain: 'rerun',
      timeout_ms: 1_234,
    })
    const [got, ...others] = await claim()
    expect(others).toEqual([])
    expect(got).toEqual({
      id,
      attempt: 5,
      generation: 2,
      tenant_id: 'default',
      operation: 'chat.completions',
      model: 'simulated/one',
      lane,
      request: Buffer.from([0, 255, 10]),
      request_headers: null,
      mark: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
      streamed: false,
      timeout_ms: 1_234,
      on_uncertain: 'rerun',
      reruns: 3,
      priority: 5,
      run_at: (await jobRow(store, id))['run_at'],
      next_tenant: null,
      next_credit: null,
      more: null,
      at_limit: null,
      queue_ms: expect.any(Number) as number,
    })
    expect(got?.queue_ms).toBeGreaterThanOrEqual(2_000)
    expect(got?.queue_ms).toBeLessThan(10_000)
    const job = await jobRow(store, id)
    expect(job).toMatchObject({ state: 'running', attempt: 5, tries: 2, paid: 2, billed: 0, generation: 2 })
    expect(job['started_at']).toBeInstanceOf(Date)
    expect(await attemptRow(store, id, 5)).toMatchObject({
      generation: 2,
      tenant_id: 'default',
      idempotency_key: job['idempotency_key'],
      fingerprint: job['fingerprint'],
      worker_id: worker,
      claim: number,
      reserved_usd: null,
      reserved_tokens: null,
      lane,
      model: 'simulated/one',
      finished_at: null,
      outcome: null,
      billing: null,
    })
  })

  it('takes what is due in the lane, and no other', async () => {
    const ids = await Promise.all([add(), add({ state: 'cancelled' }), add(), insertJob(store)])
    expect((await claim()).map(({ id }) => id).toSorted()).toEqual([ids[0], ids[2]].toSorted())
    expect(await ready()).toEqual([])
  })

  it('takes no more than it has places for', async () => {
    await Promise.all(Array.from({ length: 7 }, () => add()))
    expect(await claim(worker, 3)).toHaveLength(3)
    expect(await ready()).toHaveLength(4)
  })

  it('of an empty lane gets nothing', async () => {
    expect(await claim()).toEqual([])
  })
})

describe('a claim that comes to nothing', () => {
  it.each<[string, Parameters<typeof insertJob>[1]]>([
    ['running', { state: 'running' }],
    ['succeeded', { state: 'succeeded' }],
    ['failed', { state: 'failed' }],
    ['uncertain', { state: 'uncertain' }],
    ['cancelled', { state: 'cancelled' }],
    ['due in a second', { run_at: inSeconds(1) }],
    ['overdue', { deadline_at: inSeconds(0) }],
  ])('is one of a lane whose job is %s: nothing changes', async (_, columns) => {
    const id = await add(columns)
    const before = [await jobRow(store, id), await ready()]
    expect(await claim()).toEqual([])
    expect([await jobRow(store, id), await ready()]).toEqual(before)
    expect(await store.query('select 1 from attempts where job_id = $1', [id])).toEqual([])
  })

  // Rows of `ready` follow from those of `jobs`; a wrong one must not make a job run.
  it.each<[string, Parameters<typeof insertJob>[1]]>([
    ['running', { state: 'running' }],
    ['uncertain', { state: 'uncertain' }],
    ['succeeded', { state: 'succeeded' }],
    ['due in a minute', { run_at: inSeconds(60) }],
    ['overdue', { deadline_at: inSeconds(0) }],
  ])('is one that finds a job in the list that is %s', async (_, columns) => {
    const id = await add(columns)
    await store.query('delete from ready where job_id = $1', [id])
    await store.query(
      `insert into ready (lane, tenant_id, model, priority, run_at, job_id, deadline_at, created_at)
       select lane, tenant_id, model, priority, now(), id, now() + interval '1 day', created_at from jobs where id = $1`,
      [id],
    )
    const before = await jobRow(store, id)
    expect(await claim()).toEqual([])
    expect(await jobRow(store, id)).toEqual(before)
  })

  it('is due now, and has its deadline in a second', async () => {
    await add({ run_at: inSeconds(0), deadline_at: inSeconds(1) })
    expect(await claim()).toHaveLength(1)
  })
})

describe('limits', () => {
  // The CHECK keeps such rows from being queued at all; the claim asks again, should a limit ever change under a queued job.
  const withoutCheck = async (columns: Parameters<typeof insertJob>[1]): Promise<string> => {
    await store.query('alter table jobs drop constraint jobs_queued_may_run')
    try {
      return await add(columns)
    } finally {
      await store.query(`alter table jobs add constraint jobs_queued_may_run check (state <> 'queued' or tries < max_attempts
        and (paid = 0 or (on_uncertain = 'rerun' and paid < max_paid_attempts) or paid < consented_paid)) not valid`)
    }
  }

  it.each<[string, Parameters<typeof insertJob>[1], boolean]>([
    ['the last try', { tries: 4, max_attempts: 5 }, true],
    ['no try left', { tries: 5, max_attempts: 5 }, false],
    ['the last payment', { paid: 1, max_paid_attempts: 2, attempt: 1 }, true],
    ['no payment left', { paid: 2, max_paid_attempts: 2, attempt: 2 }, false],
    ['no payment left, with consent', { paid: 2, max_paid_attempts: 2, consented_paid: 3, attempt: 2 }, true],
    ['consent used up', { paid: 3, max_paid_attempts: 2, consented_paid: 3, attempt: 3 }, false],
    ['hold, unpaid', { paid: 0, on_uncertain: 'hold' }, true],
    ['hold, paid', { paid: 1, on_uncertain: 'hold', attempt: 1 }, false],
    ['hold, paid, with consent', { paid: 1, on_uncertain: 'hold', consented_paid: 2, attempt: 1 }, true],
    ['fail, paid', { paid: 1, on_uncertain: 'fail', max_paid_attempts: 9, attempt: 1 }, false],
  ])('%s', async (_, columns, claimed) => {
    await (claimed ? add(columns) : withoutCheck(columns))
    expect(await claim()).toHaveLength(claimed ? 1 : 0)
  })

  it('a queued row that may not run cannot be written', async () => {
    await expect(add({ paid: 1, on_uncertain: 'hold', attempt: 1 })).rejects.toThrow('jobs_queued_may_run')
    await expect(add({ paid: 2, max_paid_attempts: 2, attempt: 2 })).rejects.toThrow('jobs_queued_may_run')
    await expect(add({ tries: 5, max_attempts: 5 })).rejects.toThrow('jobs_queued_may_run')
  })
})

describe('lanes', () => {
  it.each([
    ['open', null, true],
    ['paused', 1, false],
    ['paused', 0, true],
    ['breaker', 1, false],
    ['breaker', 0, true],
    ['stopped', null, false],
  ] as const)('%s (until %s s): claimed %s; in a closed lane it waits', async (state, until, claimed) => {
    await setLane(state, until)
    const id = await add()
    expect(await claim()).toHaveLength(claimed ? 1 : 0)
    expect(await jobRow(store, id)).toMatchObject({ state: claimed ? 'running' : 'queued', attempt: claimed ? 1 : 0 })
    expect(await ready()).toEqual(claimed ? [] : [id])
  })

  it('one that was stopped while a claim was on its way closes the next one', async () => {
    await add()
    await stopLane(store.db, lane, 'provider_auth', 'wrong key')
    expect(await claim()).toEqual([])
  })
})

describe('workers', () => {
  it('that are dead, retired or unknown claim nothing', async () => {
    const id = await add()
    const [dead, retired] = [await addWorker(store), await addWorker(store)]
    expect(await markWorkerDead(store.db, dead, 0)).toBe(true)
    await retireWorker(store.db, retired)
    for (const by of [dead, retired, randomUUID()]) expect(await claim(by)).toEqual([])
    expect(await jobRow(store, id)).toMatchObject({ state: 'queued', attempt: 0 })
  })

  it('declared dead during a claim: the claim waits, and is refused', async () => {
    const doomed = await addWorker(store)
    const id = await add()
    const marking = await openTransaction(store, 'select 1 from workers where id = $1 for update', [doomed])
    const claiming = claim(doomed)
    await untilBlocked(store)
    await marking.query('update workers set dead = true, died_at = now() where id = $1', [doomed])
    await marking.finish('commit')
    expect(await claiming).toEqual([])
    expect(await jobRow(store, id)).toMatchObject({ state: 'queued', paid: 0 })
  })

  it('beat and claim without waiting for each other', async () => {
    const alive = await addWorker(store)
    await add()
    const beating = await openTransaction(store, 'update workers set beat = beat + 1 where id = $1', [alive])
    expect(await claim(alive)).toHaveLength(1)
    await beating.finish('commit')
    const second = await add()
    const gate = await holdAttempt(second)
    const claiming = claim(alive)
    await untilBlocked(store)
    expect(await beatWorker(store.db, alive)).toBe(true)
    await gate.finish('rollback')
    expect(await claiming).toHaveLength(1)
  })

  it('that claim while they are declared dead: the declaration waits, and the reclaim sees the attempt', async () => {
    const doomed = await addWorker(store)
    const id = await add()
    const gate = await holdAttempt(id)
    const claiming = claim(doomed)
    await untilBlocked(store)
    const marking = markWorkerDead(store.db, doomed, 0)
    await untilBlocked(store, 2)
    await gate.finish('rollback')
    expect(await claiming).toHaveLength(1)
    expect(await marking).toBe(true)
    const ended = await reclaimAttempts(store.db, '{"code":"worker_lost"}', 10, uncertainTtlSeconds)
    expect(ended.filter(({ jobId }) => jobId === id)).toMatchObject([{ attempt: 1, movedTo: 'queued' }])
  })

  it('that claim while they retire: the farewell waits', async () => {
    const leaving = await addWorker(store)
    const id = await add()
    const gate = await holdAttempt(id)
    const claiming = claim(leaving)
    await untilBlocked(store)
    const retiring = retireWorker(store.db, leaving)
    await untilBlocked(store, 2)
    await gate.finish('rollback')
    expect(await claiming).toHaveLength(1)
    await retiring
    expect(await reclaimAttempts(store.db, '{}', 10, uncertainTtlSeconds)).toMatchObject([{ jobId: id }])
  })

  it('many claims and declarations at once: no attempt stays open under a dead worker', async () => {
    for (let round = 0; round < 20; round += 1) {
      const doomed = await addWorker(store)
      await Promise.all([add(), add(), add()])
      await Promise.all([
        ...[1, 2, 3].map(() => claim(doomed, 1)),
        markWorkerDead(store.db, doomed, 0).then(() => reclaimAttempts(store.db, '{}', 100, uncertainTtlSeconds)),
      ])
      const open = await store.query(
        'select 1 from attempts a join workers w on w.id = a.worker_id and w.dead where a.finished_at is null',
      )
      expect(open).toEqual([])
    }
  })
})

describe('one job, several claims', () => {
  it('at the same time: one gets it', async () => {
    const workers = await Promise.all([addWorker(store), addWorker(store), addWorker(store)])
    for (let round = 0; round < 20; round += 1) {
      const ids = await Promise.all([add(), add(), add(), add()])
      const got = await Promise.all(workers.map((by) => claim(by)))
      const claimed = got.flat().map(({ id }) => id)
      expect(claimed.length).toBeLessThanOrEqual(4)
      expect(new Set(claimed).size).toBe(claimed.length)
      // skip locked: where two met, one of them may have passed by a row that the other let go.
      await claim()
      const rows = await store.query<{ attempt: number; paid: number }>(
        'select attempt, paid from jobs where id = any($1)',
        [ids],
      )
      expect(rows).toEqual(ids.map(() => ({ attempt: 1, paid: 1 })))
    }
  })

  it('passes by one whose row somebody holds, with few places too', async () => {
    const [held, free] = await Promise.all([add({ run_at: inSeconds(-9) }), add()])
    const holder = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [held])
    expect((await claim(worker, 1)).map(({ id }) => id)).toEqual([free])
    expect(await ready()).toEqual([held])
    await holder.finish('rollback')
    expect((await claim()).map(({ id }) => id)).toEqual([held])
  })

  it('one that is cancelled meanwhile stays cancelled, whoever is first', async () => {
    for (let round = 0; round < 20; round += 1) {
      const id = await add()
      const [got] = await Promise.all([
        claim(),
        store.query(
          `update jobs set state = 'cancelled', completed_at = now(), expires_at = now() where id = $1 and state = 'queued'`,
          [id],
        ),
      ])
      const rest = await claim()
      const { state, paid } = await jobRow(store, id)
      expect([state, paid]).toEqual(got.length === 1 ? ['running', 1] : ['cancelled', 0])
      expect([rest, await ready()]).toEqual([[], []])
    }
  })
})
