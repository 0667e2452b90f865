import { randomUUID } from 'node:crypto'
import { readDispatched, takeBackDispatches, takeDueJobs, type DispatchedJob } from '@askonce/store'
import { beforeEach, describe, expect, it } from 'vitest'
import { inSeconds, insertJob, jobRow, openTransaction, secondsTo, useStore } from './fixture.ts'

const store = useStore()

beforeEach(async () => {
  await store.query('truncate jobs, lanes')
})

async function closeLane(name: string, state: string, until: number | null): Promise<void> {
  await store.query(
    `insert into lanes (name, state, reason, until) values ($1, $2, 'why', now() + $3::float8 * interval '1 second')`,
    [name, state, until],
  )
}

describe('takeDueJobs', () => {
  it('takes a due job, counts the hand-over and dates it', async () => {
    const id = await insertJob(store, { dispatch: 4, priority: 2, run_at: inSeconds(0) })
    expect(await takeDueJobs(store.db, 10)).toEqual([{ id, dispatch: 5, lane: 'simulated', priority: 2 }])
    expect(await jobRow(store, id)).toMatchObject({ dispatch: 5, state: 'queued' })
    expect(Math.abs(await secondsTo(store, 'dispatched_at', id))).toBeLessThan(30)
    expect(await takeDueJobs(store.db, 10)).toEqual([])
  })

  it.each<[string, Parameters<typeof insertJob>[1]]>([
    ['due in a second', { run_at: inSeconds(1) }],
    ['handed over already', { dispatched_at: inSeconds(-1_000) }],
    ['running', { state: 'running' }],
    ['failed', { state: 'failed' }],
    ['uncertain', { state: 'uncertain' }],
  ])('leaves a job that is %s', async (_, columns) => {
    await insertJob(store, columns)
    expect(await takeDueJobs(store.db, 10)).toEqual([])
  })

  it('takes the oldest due of each lane first, at most so many of each', async () => {
    const due: Record<string, string[]> = { a: [], b: [], c: [] }
    for (const lane of ['a', 'b', 'c'])
      for (const ago of [1, 3, 2]) due[lane]?.push(await insertJob(store, { lane, run_at: inSeconds(-ago) }))
    const first = await takeDueJobs(store.db, 2)
    expect(first.map(({ id }) => id).toSorted()).toEqual(
      ['a', 'b', 'c'].flatMap((lane) => due[lane]?.slice(1) ?? []).toSorted(),
    )
    const second = await takeDueJobs(store.db, 2)
    expect(second.map(({ id }) => id).toSorted()).toEqual(
      ['a', 'b', 'c'].flatMap((lane) => due[lane]?.slice(0, 1) ?? []).toSorted(),
    )
  })

  it.each([
    ['open', null, 3],
    ['paused', 1, 0],
    ['paused', 0, 1],
    ['breaker', 1, 0],
    ['breaker', 0, 1],
    ['stopped', null, 0],
  ] as const)(
    'takes from a lane that is %s (until %s s): %i of 3; other lanes are not held up',
    async (state, until, count) => {
      await closeLane('b', state, until)
      for (const lane of ['a', 'b', 'b', 'b', 'c']) await insertJob(store, { lane })
      const lanes = (await takeDueJobs(store.db, 10)).map(({ lane }) => lane)
      expect(lanes.filter((lane) => lane === 'b')).toHaveLength(count)
      expect(lanes.filter((lane) => lane !== 'b').toSorted()).toEqual(['a', 'c'])
    },
  )

  const pauseModel = (model: string, seconds: number): Promise<unknown> =>
    store.query(
      `insert into lanes (name, model, state, reason, until) values ('a', $1, 'paused', 'why', now() + $2::float8 * interval '1 second')`,
      [model, seconds],
    )
  const insertMany = (model: string, count: number): Promise<unknown[]> =>
    Promise.all(Array.from({ length: count }, () => insertJob(store, { lane: 'a', model, run_at: inSeconds(-60) })))

  it('leaves a paused model, however much of it waits, and does not let the other models of its lane wait for it', async () => {
    await pauseModel('paused', 60)
    await insertMany('paused', 30)
    const others = [
      await insertJob(store, { lane: 'a', model: 'before', run_at: inSeconds(-1) }),
      await insertJob(store, { lane: 'a', model: 'quick', run_at: inSeconds(-1) }),
    ]
    expect((await takeDueJobs(store.db, 2)).map(({ id }) => id).toSorted()).toEqual(others.toSorted())
    expect(await takeDueJobs(store.db, 2)).toEqual([])
  })

  it('gives the models of a lane equal shares of what it takes', async () => {
    await insertMany('many', 30)
    const few = await insertJob(store, { lane: 'a', model: 'few', run_at: inSeconds(-1) })
    const taken = await takeDueJobs(store.db, 10)
    expect(taken).toHaveLength(6)
    expect(taken.map(({ id }) => id)).toContain(few)
  })

  it.each([
    ['a model', () => pauseModel('slow', 0)],
    ['a lane', () => closeLane('a', 'paused', 0)],
    ['a breaker', () => closeLane('a', 'breaker', 0)],
  ])('after the pause of %s hands over one job a second, whoever looks, until an answer', async (what, close) => {
    await close()
    await insertMany('slow', 6)
    await insertJob(store, { lane: 'a', model: 'quick' })
    const look = async (): Promise<number> =>
      (await Promise.all([1, 2, 3].map(() => takeDueJobs(store.db, 100)))).flat().length
    expect(await look()).toBe(what === 'a model' ? 2 : 1)
    expect(await look()).toBe(0)
    await store.query(`update lanes set turn_at = turn_at - interval '1 second'`)
    expect(await look()).toBe(1)
    await store.query(`update lanes set state = 'open', until = null`)
    expect(await look()).toBeGreaterThan(3)
  })

  it('passes by a row that somebody holds', async () => {
    const [held, free] = [await insertJob(store, { run_at: inSeconds(-9) }), await insertJob(store)]
    const holder = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [held])
    expect((await takeDueJobs(store.db, 10)).map(({ id }) => id)).toEqual([free])
    await holder.finish('rollback')
    expect((await takeDueJobs(store.db, 10)).map(({ id }) => id)).toEqual([held])
  })

  it('of several janitors at once hands each job over once', async () => {
    const ids = await Promise.all(Array.from({ length: 60 }, (_, index) => insertJob(store, { lane: `l${index % 3}` })))
    const taken = await Promise.all([1, 2, 3, 4].map(() => takeDueJobs(store.db, 100)))
    const rest = await takeDueJobs(store.db, 100)
    expect([...taken.flat(), ...rest].map(({ id }) => id).toSorted()).toEqual(ids.toSorted())
  })

  it('does nothing with an empty table', async () => {
    expect(await takeDueJobs(store.db, 10)).toEqual([])
  })
})

describe('readDispatched', () => {
  it('reads what was handed over so long ago, and not a millisecond less', async () => {
    const old = await insertJob(store, { dispatched_at: inSeconds(-60), dispatch: 3, priority: 1, lane: 'a' })
    await insertJob(store, { dispatched_at: inSeconds(-30) })
    await insertJob(store, { state: 'running', dispatched_at: inSeconds(-60) })
    await insertJob(store)
    const dispatchedAt = expect.any(String) as string
    expect(await readDispatched(store.db, 59_999, null, 10)).toEqual([
      { id: old, dispatch: 3, lane: 'a', priority: 1, dispatchedAt },
    ])
    expect(await readDispatched(store.db, 300_000, null, 10)).toEqual([])
  })

  it('pages through rows of one microsecond and neighbours, oldest first, each once', async () => {
    const base = '2026-01-01T00:00:00'
    const times = ['.123456Z', '.123456Z', '.123456Z', '.123457Z', '.123455Z', '.1234Z', 'Z']
    for (const time of times) await insertJob(store, { dispatched_at: base + time })
    const seen: DispatchedJob[] = []
    for (let after: DispatchedJob | null = null; ; after = seen.at(-1) ?? null) {
      const page: DispatchedJob[] = await readDispatched(store.db, 0, after, 2)
      seen.push(...page)
      if (page.length < 2) break
    }
    expect(new Set(seen.map(({ id }) => id)).size).toBe(times.length)
    const ordered = await store.query<{ id: string }>('select id from jobs order by dispatched_at, id')
    expect(seen.map(({ id }) => id)).toEqual(ordered.map(({ id }) => id))
  })
})

describe('takeBackDispatches', () => {
  it('takes back the very hand-over that was lost, and nothing else', async () => {
    const dispatched = { dispatched_at: inSeconds(-9), dispatch: 2 }
    const lost = await insertJob(store, dispatched)
    const again = await insertJob(store, { ...dispatched, dispatch: 3 })
    const running = await insertJob(store, { ...dispatched, state: 'running' })
    const waiting = await insertJob(store, { dispatch: 2 })
    const ids = [lost, again, running, waiting, randomUUID()]
    const before = await Promise.all([again, running, waiting].map((id) => jobRow(store, id)))
    expect(
      await takeBackDispatches(
        store.db,
        ids.map((id) => ({ id, dispatch: 2 })),
      ),
    ).toBe(1)
    expect(await jobRow(store, lost)).toMatchObject({ dispatched_at: null, dispatch: 2 })
    expect(await Promise.all([again, running, waiting].map((id) => jobRow(store, id)))).toEqual(before)
    expect(await takeDueJobs(store.db, 10)).toContainEqual({ id: lost, dispatch: 3, lane: 'simulated', priority: 5 })
  })

  it('leaves a row that is being claimed, and may be empty', async () => {
    const id = await insertJob(store, { dispatched_at: inSeconds(-9), dispatch: 2 })
    const holder = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [id])
    expect(await takeBackDispatches(store.db, [{ id, dispatch: 2 }])).toBe(0)
    await holder.finish('rollback')
    expect(await takeBackDispatches(store.db, [])).toBe(0)
  })
})
