import { once } from 'node:events'
import {
  breakerThreshold,
  clearTrouble,
  countOverload,
  LaneWatch,
  pauseLane,
  readLanes,
  resumeLane,
  stopLane,
  claimJobs,
  type LaneReading,
} from '@askonce/store'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { addWorker, insertJob, useStore } from './fixture.ts'

const store = useStore()

let worker = ''
beforeAll(async () => {
  worker = await addWorker(store)
})
beforeEach(async () => {
  await store.query('truncate lanes, jobs, ready')
})

const lane = async (name = 'a', model = ''): Promise<LaneReading | undefined> =>
  (await readLanes(store.db)).find((row) => row.name === name && row.model === model)

const stop = (reason = 'wrong key') => stopLane(store.db, 'a', 'provider_auth', reason)
const pause = (leastMs: number, more: { model?: string; sinceMs?: number } = {}) =>
  pauseLane(store.db, {
    name: 'a',
    model: '',
    code: 'provider_rate_limited',
    reason: 'slow down',
    leastMs,
    sinceMs: 0,
    ...more,
  })
const overload = (leastMs = 60_000, sinceMs = 0) =>
  countOverload(store.db, { name: 'a', code: 'provider_unavailable', reason: '503', leastMs, sinceMs })
const openBreaker = async (forMs = 60_000, sinceMs = 0): Promise<void> => {
  for (let count = 0; count < breakerThreshold; count += 1) await overload(forMs, sinceMs)
}
/** Whether a claim, for which there is something to send, takes a probe. */
const takeProbe = async (): Promise<boolean> => {
  await insertJob(store, { lane: 'a' })
  return (await claimLane()) > 0
}
const claimLane = async (): Promise<number> => {
  const turn = { tenant: '', credit: 0 }
  const request = { workerId: worker, number: 1, lane: 'a', places: 5, turn, agedFirst: false, known: [] }
  return (await claimJobs(store.db, request)).claims.length
}
/** Lets the lane's wait be over, as if time had passed. */
const pass = () => store.query(`update lanes set until = now() where name = 'a'`)

describe('stopLane', () => {
  it.each([
    ['a new lane', () => Promise.resolve()],
    ['a paused one', () => pause(60_000)],
    ['an open breaker', () => openBreaker()],
  ])('stops %s', async (_, prepare) => {
    await prepare()
    await stop()
    expect(await lane()).toMatchObject({
      state: 'stopped',
      code: 'provider_auth',
      reason: 'wrong key',
      until: null,
      remaining_ms: 0,
    })
  })

  it('keeps the first reason, until a person resumes', async () => {
    await stop()
    await stop('another')
    await pause(1)
    await openBreaker()
    await clearTrouble(store.db, 'a', '')
    expect(await takeProbe()).toBe(false)
    expect(await lane()).toMatchObject({ state: 'stopped', reason: 'wrong key', failures: 0 })
    expect(await resumeLane(store.db, 'a')).toMatchObject({
      state: 'open',
      reason: null,
      code: null,
      until: null,
      failures: 0,
    })
    await stop('another')
    expect(await lane()).toMatchObject({ state: 'stopped', reason: 'another' })
  })
})

describe('pauseLane', () => {
  it('pauses until then; the later end of two wins', async () => {
    await pause(60_000)
    await pause(1_000)
    expect(await lane()).toMatchObject({ state: 'paused', code: 'provider_rate_limited' })
    expect((await lane())?.remaining_ms).toBeGreaterThan(30_000)
    await pause(600_000)
    expect((await lane())?.remaining_ms).toBeGreaterThan(500_000)
  })

  it('pauses again after a pause that is over', async () => {
    await pause(60_000)
    await pass()
    expect((await lane())?.remaining_ms).toBe(0)
    await pause(60_000)
    expect((await lane())?.remaining_ms).toBeGreaterThan(30_000)
  })

  it('closes one model, and leaves the lane and its other models alone', async () => {
    expect(await pause(60_000, { model: 'm' })).toMatchObject({ state: 'paused' })
    expect(await lane('a', 'm')).toMatchObject({ state: 'paused', code: 'provider_rate_limited', reason: 'slow down' })
    expect(await lane()).toBeUndefined()
    expect(await lane('a', 'n')).toBeUndefined()
    await clearTrouble(store.db, 'a', 'n')
    expect(await lane('a', 'm')).toMatchObject({ failures: 1 })
  })

  it('lasts for our own wait where the provider names none or a shorter one, doubling up to five minutes', async () => {
    for (const window of [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000]) {
      await pause(1, { model: 'm' })
      const { remaining_ms: waitMs = Number.NaN } = (await lane('a', 'm')) ?? {}
      expect(waitMs).toBeGreaterThan(window / 2 - 1_000)
      expect(waitMs).toBeLessThanOrEqual(window)
      await store.query('update lanes set until = now()')
    }
    await clearTrouble(store.db, 'a', 'm')
    expect(await lane('a', 'm')).toBeUndefined()
    await pause(0, { model: 'm' })
    expect((await lane('a', 'm'))?.remaining_ms).toBeLessThanOrEqual(2_000)
  })

  it('counts calls that were refused together once, and still takes the longest wait that one of them names', async () => {
    await Promise.all(Array.from({ length: 30 }, (_, index) => pause(index * 1_000, { model: 'm', sinceMs: 5_000 })))
    expect(await lane('a', 'm')).toMatchObject({ failures: 1 })
    expect((await lane('a', 'm'))?.remaining_ms).toBeGreaterThan(28_000)
  })

  it('forgets models whose pause ended an hour ago, and no others', async () => {
    for (const model of ['old', 'recent', 'running']) await pause(60_000, { model })
    await pause(60_000)
    await store.query(`update lanes set until = now() - interval '61 minutes' where model in ('old', '')`)
    await store.query(`update lanes set until = now() - interval '59 minutes' where model = 'recent'`)
    await pause(60_000, { model: 'new' })
    const models = (await readLanes(store.db)).map(({ model }) => model)
    expect(models).toEqual(['', 'new', 'recent', 'running'])
  })

  it('leaves a breaker to itself', async () => {
    await openBreaker(1_000)
    await pause(600_000)
    expect(await lane()).toMatchObject({ state: 'breaker' })
  })
})

describe('the breaker', () => {
  it('opens at the fifth overload answer in a row, and not at the fourth', async () => {
    for (let count = 1; count < breakerThreshold; count += 1) {
      await overload()
      expect(await lane()).toMatchObject({ state: 'open', failures: count, until: null, reason: null })
    }
    await overload()
    expect(await lane()).toMatchObject({ state: 'breaker', failures: 5, reason: '503', code: 'provider_unavailable' })
    expect((await lane())?.remaining_ms).toBeGreaterThan(30_000)
  })

  it('counts from the start after an answer', async () => {
    for (let count = 1; count < breakerThreshold; count += 1) await overload()
    await clearTrouble(store.db, 'a', '')
    await overload()
    expect(await lane()).toMatchObject({ state: 'open', failures: 1 })
  })

  it('waits for the first backoff after forty calls that began before it opened, not for the thirty-fifth', async () => {
    const closed = await Promise.all(Array.from({ length: 40 }, () => overload(0, 5_000)))
    expect(await lane()).toMatchObject({ state: 'breaker', failures: breakerThreshold })
    expect((await lane())?.remaining_ms).toBeLessThanOrEqual(2_000)
    expect(closed.filter((one) => one === null)).toHaveLength(35)
  })

  it('doubles its own wait, half of it fixed, up to five minutes', async () => {
    await openBreaker(0)
    for (const window of [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000]) {
      const { remaining_ms: waitMs = Number.NaN } = (await lane()) ?? {}
      expect(waitMs).toBeGreaterThan(window / 2 - 1_000)
      expect(waitMs).toBeLessThanOrEqual(window)
      await pass()
      await takeProbe()
      await overload(0)
    }
  })

  it('does not cut a pause short that the provider asked for', async () => {
    await pause(600_000)
    // Nobody calls during the pause: these are calls that were under way.
    await openBreaker(1_000, 5_000)
    expect((await lane())?.remaining_ms).toBeGreaterThan(500_000)
  })

  it('spends no probe where there is nothing to send', async () => {
    await openBreaker()
    await pass()
    expect(await claimLane()).toBe(0)
    expect(await lane()).toMatchObject({ state: 'breaker', failures: breakerThreshold })
    expect((await lane())?.remaining_ms).toBe(0)
    expect(await takeProbe()).toBe(true)
    expect((await lane())?.remaining_ms).toBeGreaterThan(30_000)
    await stop()
    expect(await claimLane()).toBe(0)
    expect(await lane()).toMatchObject({ state: 'stopped' })
  })

  it('lets one probe through when its wait is over, and the next when that was lost', async () => {
    await openBreaker()
    expect(await takeProbe()).toBe(false)
    await pass()
    const taken = await Promise.all(Array.from({ length: 8 }, () => takeProbe()))
    expect(taken.filter(Boolean)).toHaveLength(1)
    expect(await lane()).toMatchObject({ state: 'breaker' })
    await pass()
    expect(await takeProbe()).toBe(true)
  })

  it('waits for the backoff and not for the probe after a probe that met the overload', async () => {
    await openBreaker()
    await pass()
    await takeProbe()
    await overload(0)
    expect((await lane())?.remaining_ms).toBeLessThanOrEqual(4_000)
    expect(await lane()).toMatchObject({ state: 'breaker', failures: 6 })
  })

  it('closes at an answer', async () => {
    await openBreaker()
    await clearTrouble(store.db, 'a', '')
    expect(await lane()).toMatchObject({ state: 'open', failures: 0, until: null, reason: null, code: null })
  })

  it('leaves no mark on a lane that is open or paused', async () => {
    expect(await takeProbe()).toBe(true)
    expect(await lane()).toBeUndefined()
    await pause(60_000)
    const before = await lane()
    expect(await takeProbe()).toBe(false)
    expect(await lane()).toMatchObject({ state: 'paused', failures: before?.failures })
  })
})

describe('clearTrouble', () => {
  it('leaves a pause alone, and does not write a lane that is in order', async () => {
    await clearTrouble(store.db, 'a', '')
    expect(await lane()).toBeUndefined()
    await pause(60_000)
    await overload()
    await clearTrouble(store.db, 'a', '')
    expect(await lane()).toMatchObject({ state: 'paused', failures: 0 })
    expect((await lane())?.remaining_ms).toBeGreaterThan(30_000)
    const [before] = await store.query<{ xmin: string }>('select xmin::text from lanes')
    await clearTrouble(store.db, 'a', '')
    expect(await store.query('select xmin::text from lanes')).toEqual([before])
  })
})

describe('resumeLane', () => {
  it('opens one model, or the lane with every model in it', async () => {
    await stop()
    for (const model of ['m', 'n', 'o']) await pause(60_000, { model })
    expect(await resumeLane(store.db, 'a', 'm')).toMatchObject({ model: 'm', state: 'open' })
    expect((await readLanes(store.db)).map(({ model, state }) => [model, state])).toEqual([
      ['', 'stopped'],
      ['n', 'paused'],
      ['o', 'paused'],
    ])
    expect(await resumeLane(store.db, 'a', 'unknown')).toBeNull()
    expect(await resumeLane(store.db, 'a')).toMatchObject({ model: '', state: 'open' })
    expect((await readLanes(store.db)).map(({ model, state }) => [model, state])).toEqual([['', 'open']])
  })

  it('opens a breaker and a pause, and does not know a lane that was never closed', async () => {
    expect(await resumeLane(store.db, 'a')).toBeNull()
    await openBreaker()
    expect(await resumeLane(store.db, 'a')).toMatchObject({ state: 'open', failures: 0 })
    await pause(60_000)
    expect(await resumeLane(store.db, 'a')).toMatchObject({ state: 'open', until: null })
  })
})

describe('LaneWatch', () => {
  it('tells what closes a lane at this moment, from its last reading', async () => {
    await pause(60_000)
    await stopLane(store.db, 'b', 'provider_auth', 'wrong key')
    await store.query(`insert into lanes (name, state, reason, until) values ('c', 'breaker', 'why', now())`)
    const changes = new EventTarget()
    const watch = new LaneWatch(store.db, { onChange: () => void changes.dispatchEvent(new Event('read')) })
    expect(watch.closedBy('a')).toBeNull()
    await watch.refresh()
    expect(['a', 'b', 'c', 'unknown'].map((name) => watch.closedBy(name))).toEqual(['paused', 'stopped', null, null])
    expect(watch.get('c')).toMatchObject({ state: 'breaker' })
    expect(watch.names()).toEqual(['a', 'b', 'c'])

    await pause(60_000, { model: 'm' })
    await pauseLane(store.db, { name: 'd', model: 'm', code: 'x', reason: 'x', leastMs: 60_000, sinceMs: 0 })
    await watch.refresh()
    expect([watch.closedBy('d'), watch.closedBy('d', 'm'), watch.closedBy('d', 'n')]).toEqual([null, 'paused', null])
    expect(watch.closedModels('d').map(({ model }) => model)).toEqual(['m'])

    await resumeLane(store.db, 'a')
    expect(watch.closedBy('a')).toBe('paused')
    await once(changes, 'read')
    expect(watch.closedBy('a')).toBeNull()
    watch.close()
  })

  it('keeps its last reading while Postgres is away, and says so', async () => {
    await stop()
    const errors: unknown[] = []
    const watch = new LaneWatch(store.db, { onError: (error) => errors.push(error) })
    await watch.refresh()
    await store.query('alter table lanes rename to lanes_away')
    await watch.refresh()
    await store.query('alter table lanes_away rename to lanes')
    expect(errors).toHaveLength(1)
    expect(watch.closedBy('a')).toBe('stopped')
    watch.close()
  })
})
