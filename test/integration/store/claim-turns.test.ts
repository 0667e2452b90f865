import { randomUUID } from 'node:crypto'
import { claimJobs, endAttempts, type Claimed, type ClaimRequest, type Turn } from '@askonce/store'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { addWorker, ending, inSeconds, insertJob, uncertainTtlSeconds, useStore } from './fixture.ts'

const store = useStore()
let worker = ''
let lane = ''
let number = 0
beforeAll(async () => {
  worker = await addWorker(store)
})
beforeEach(() => {
  lane = `l-${randomUUID().slice(0, 8)}`
})

const start: Turn = { tenant: '', credit: 0 }

const claim = (places: number, given: Partial<ClaimRequest> = {}): Promise<Claimed> =>
  claimJobs(store.db, {
    workerId: worker,
    number: ++number,
    lane,
    places,
    turn: start,
    agedFirst: false,
    known: [],
    ...given,
  })

/** A tenant of its own with this many queued jobs, and its limits. */
async function tenant(name: string, jobs: number, columns: Record<string, unknown> = {}): Promise<string> {
  const id = `${name}-${randomUUID().slice(0, 8)}`
  await store.adminDb
    .insertInto('tenants')
    .values({ id, ...columns })
    .execute()
  await queue(id, jobs)
  return id
}

async function queue(id: string, jobs: number, columns: Parameters<typeof insertJob>[1] = {}): Promise<string[]> {
  return Promise.all(Array.from({ length: jobs }, () => insertJob(store, { tenant_id: id, lane, ...columns })))
}

const end = (claimed: Claimed, given: Parameters<typeof ending>[2] = {}): Promise<unknown> =>
  endAttempts(
    store.db,
    claimed.claims.map(({ id, attempt }) => ending(id, 'answer', { attempt, ...given })),
    uncertainTtlSeconds,
  )

/** How many calls each tenant gets when places become free one by one, or so many at a time. */
async function shares(claims: number, places: number): Promise<Map<string, number>> {
  const got = new Map<string, number>()
  let turn = start
  for (let taken = 0; taken < claims;) {
    const claimed = await claim(places, { turn })
    turn = claimed.turn
    taken += claimed.claims.length
    for (const { tenant_id: id } of claimed.claims) got.set(id, (got.get(id) ?? 0) + 1)
    if (claimed.claims.length === 0) break
  }
  return got
}

describe('turns', () => {
  it('a tenant with one job is next, however many another one has', async () => {
    const crowd = await tenant('a', 50)
    const single = await tenant('b', 0)
    const first = await claim(1)
    expect(first.claims.map(({ tenant_id: id }) => id)).toEqual([crowd])
    await queue(single, 1)
    const next = await claim(1, { turn: first.turn })
    expect(next.claims.map(({ tenant_id: id }) => id)).toEqual([single])
    const behind = await claim(1, { turn: next.turn })
    expect(behind.claims.map(({ tenant_id: id }) => id)).toEqual([crowd])
  })

  it.each([1, 3, 20])('weights 1, 2 and 4 get their shares, %s places at a time', async (places) => {
    const names = [await tenant('a', 120), await tenant('b', 120, { weight: 2 }), await tenant('c', 120, { weight: 4 })]
    const got = await shares(140, places)
    const sum = [...got.values()].reduce((one, other) => one + other, 0)
    for (const [index, name] of names.entries()) {
      expect(Math.abs((got.get(name) ?? 0) / sum - 2 ** index / 7)).toBeLessThan(0.05)
    }
  })

  it('gives all places to the one that has jobs, and says when there may be more', async () => {
    await tenant('a', 30)
    const all = await claim(20)
    expect([all.claims.length, all.more]).toEqual([20, true])
    const rest = await claim(20, { turn: all.turn })
    expect([rest.claims.length, rest.more]).toEqual([10, false])
    expect(await claim(20, { turn: rest.turn })).toMatchObject({ claims: [], more: false })
  })

  it('takes a row once only, and out of the list', async () => {
    await tenant('a', 25)
    await tenant('b', 25, { max_running: 100 })
    const got = await Promise.all(Array.from({ length: 5 }, () => claim(10)))
    const ids = got.flatMap(({ claims }) => claims.map(({ id }) => id))
    expect(new Set(ids).size).toBe(ids.length)
    let turn = start
    for (;;) {
      const more = await claim(10, { turn })
      turn = more.turn
      ids.push(...more.claims.map(({ id }) => id))
      if (more.claims.length === 0) break
    }
    expect(ids.length).toBe(50)
    expect(await store.query('select 1 from ready where lane = $1', [lane])).toEqual([])
  })
})

describe('within a tenant', () => {
  it('priority comes before age, over all models; the rest waits', async () => {
    const id = await tenant('a', 0)
    const [late] = await queue(id, 1, { priority: 5, run_at: inSeconds(-5), model: 'z' })
    const [early] = await queue(id, 1, { priority: 5, run_at: inSeconds(-9), model: 'y' })
    const [low] = await queue(id, 1, { priority: 7, run_at: inSeconds(-60), model: 'x' })
    const [first] = await queue(id, 1, { priority: 0, run_at: inSeconds(-1), model: 'z' })
    await queue(id, 1, { priority: 0, run_at: inSeconds(60) })
    await queue(id, 1, { priority: 0, deadline_at: inSeconds(-1) })
    const got: (string | undefined)[] = []
    for (let n = 0; n < 5; n += 1) got.push((await claim(1)).claims[0]?.id)
    expect(got).toEqual([first, early, late, low, undefined])
  })

  it('what has waited for an hour comes first where it is its turn', async () => {
    const id = await tenant('a', 0)
    await queue(id, 3, { priority: 0 })
    const [old] = await queue(id, 1, { priority: 9, run_at: inSeconds(-3_700) })
    const [older] = await queue(id, 1, { priority: 7, run_at: inSeconds(-3_800) })
    expect((await claim(1)).claims[0]?.priority).toBe(0)
    expect((await claim(1, { agedFirst: true })).claims[0]?.id).toBe(older)
    expect((await claim(1, { agedFirst: true })).claims[0]?.id).toBe(old)
    expect((await claim(1, { agedFirst: true })).claims[0]?.priority).toBe(0)
  })
})

describe('limits', () => {
  it('max_running is exact, however many claim at once, and the end of a call makes room', async () => {
    const id = await tenant('a', 30, { max_running: 7 })
    const claimed = await Promise.all(Array.from({ length: 6 }, () => claim(5)))
    let turn = start
    for (let n = 0; n < 5; n += 1) {
      const more = await claim(5, { turn })
      claimed.push(more)
      turn = more.turn
    }
    expect(claimed.reduce((sum, { claims }) => sum + claims.length, 0)).toBe(7)
    expect((await claim(5)).atLimit).toBe(true)
    await end(claimed.find(({ claims }) => claims.length > 0) as Claimed)
    const room = claimed.find(({ claims }) => claims.length > 0)?.claims.length
    expect((await claim(50)).claims.length).toBe(room)
    await store.query('update tenants set max_running = 2 where id = $1', [id])
    expect((await claim(5)).claims).toEqual([])
  })

  it('calls_per_minute counts what began in the last minute', async () => {
    const id = await tenant('a', 30, { calls_per_minute: 4 })
    const got = [await claim(3), await claim(3), await claim(3)]
    expect(got.map(({ claims }) => claims.length)).toEqual([3, 1, 0])
    await Promise.all(got.filter(({ claims }) => claims.length > 0).map((claimed) => end(claimed)))
    expect((await claim(3)).claims).toEqual([])
    await store.query('update tenant_seconds set "second" = "second" - 61 where tenant_id = $1', [id])
    expect((await claim(9)).claims).toHaveLength(4)
  })

  it('tokens_per_minute counts what calls may use; what is larger than all of it runs alone', async () => {
    const id = await tenant('a', 0, { tokens_per_minute: 100 })
    await queue(id, 1, { reserve_tokens: 500, run_at: inSeconds(-9) })
    await queue(id, 5, { reserve_tokens: 40 })
    expect((await claim(9)).claims).toHaveLength(1)
    expect((await claim(9)).claims).toHaveLength(0)
    await store.query('delete from tenant_seconds where tenant_id = $1', [id])
    expect((await claim(9)).claims).toHaveLength(2)
    expect((await claim(9)).claims).toHaveLength(0)
  })

  it('a budget is kept by reservation: of the day, of the month, and by jobs with a price only', async () => {
    const id = await tenant('a', 0, { budget_day_usd: 1, budget_month_usd: 5 })
    await queue(id, 3, { reserve_usd: 0.4 })
    await queue(id, 1, { reserve_usd: null, run_at: inSeconds(-99) })
    await queue(id, 1, { reserve_usd: 1.5, run_at: inSeconds(-99) })
    await store.query(
      `insert into attempts (job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model, worker_id,
         finished_at, outcome, billing, cost_usd)
       values ($1, 1, 1, $2, 'k', '', 'responses', 'l', 'm', $1, now(), 'answered', 'billed', 0.15)`,
      [randomUUID(), id],
    )
    expect((await claim(9)).claims).toHaveLength(2)
    expect((await claim(9)).claims).toHaveLength(0)
    expect(
      await store.query(
        'select spent_usd::float8 as spent, reserved_usd::float8 as reserved from tenant_days where tenant_id = $1',
        [id],
      ),
    ).toEqual([{ spent: 0.15, reserved: 0.8 }])
    await queue(id, 1, { reserve_usd: 0.05 })
    expect((await claim(9)).claims).toHaveLength(1)
    await store.query(`update tenants set budget_day_usd = 100, budget_month_usd = 1.5 where id = $1`, [id])
    expect((await claim(9)).claims).toHaveLength(1)
    expect((await claim(9)).claims).toHaveLength(0)
  })
})

describe('a lane that was closed for a time', () => {
  const close = (columns: string): Promise<unknown> =>
    store.query(`insert into lanes (name, model, state, reason, until) values ${columns}`)

  it('paused: one call leaves, and a second later the next', async () => {
    await tenant('a', 5)
    await close(`('${lane}', '', 'paused', 'why', now() - interval '1 second')`)
    expect((await claim(5)).claims).toHaveLength(1)
    expect((await claim(5)).claims).toHaveLength(0)
    await store.query('update lanes set turn_at = now() where name = $1', [lane])
    expect((await Promise.all([claim(5), claim(5), claim(5)])).flatMap(({ claims }) => claims)).toHaveLength(1)
  })

  it('behind a breaker: one probe, and its wait begins only where there was something to send', async () => {
    await close(`('${lane}', '', 'breaker', 'why', now() - interval '1 second')`)
    expect((await claim(5)).claims).toHaveLength(0)
    await tenant('a', 5)
    expect((await Promise.all([claim(5), claim(5), claim(5)])).flatMap(({ claims }) => claims)).toHaveLength(1)
    expect((await claim(5)).claims).toHaveLength(0)
  })

  it.each(['stopped', 'paused'] as const)('%s: nothing', async (state) => {
    await tenant('a', 5)
    await close(`('${lane}', '', '${state}', 'why', ${state === 'paused' ? "now() + interval '1 minute'" : 'null'})`)
    expect((await claim(5)).claims).toHaveLength(0)
  })

  it('a model of it: the others go on; when it opens, one call at a time', async () => {
    const id = await tenant('a', 0)
    await queue(id, 3, { model: 'shut', priority: 0 })
    await queue(id, 3, { model: 'open' })
    await close(`('${lane}', 'shut', 'paused', 'why', now() + interval '1 minute')`)
    expect((await claim(5)).claims.map(({ model }) => model)).toEqual(['open', 'open', 'open'])
    await store.query(`update lanes set until = now() - interval '1 second' where name = $1`, [lane])
    expect((await claim(5)).claims.map(({ model }) => model)).toEqual(['shut'])
    expect((await claim(5)).claims).toHaveLength(0)
  })
})

describe('known groups', () => {
  it('are looked at from where they are said to begin, and what lies between them is found', async () => {
    const first = await tenant('a', 2)
    const second = await tenant('b', 2)
    const third = await tenant('c', 2)
    const model = 'simulated/one'
    const known = [
      { tenant: first, model, priority: 5, since: new Date(Date.now() + 60_000) },
      { tenant: third, model, priority: 5, since: new Date(Date.now() - 60_000) },
    ]
    const got = await claim(9, { known })
    expect(got.claims.map(({ tenant_id: id }) => id)).toEqual([second, third, second, third])
    expect((await claim(9)).claims.map(({ tenant_id: id }) => id)).toEqual([first, first])
  })
})

describe('several models of one priority', () => {
  it('go by age, one by one and many at a time', async () => {
    const id = await tenant('a', 0)
    const order: string[] = []
    for (let n = 0; n < 12; n += 1) {
      const [job = ''] = await queue(id, 1, { model: `m${n % 3}`, run_at: inSeconds(n - 60) })
      order.push(job)
    }
    const got = [await claim(1), await claim(4), await claim(40)].flatMap(({ claims }) => claims.map((one) => one.id))
    expect([got[0], new Set(got.slice(1, 5)), new Set(got.slice(5))]).toEqual([
      order[0],
      new Set(order.slice(1, 5)),
      new Set(order.slice(5)),
    ])
  })
})
