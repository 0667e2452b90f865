import { setImmediate as nextTurn } from 'node:timers/promises'
import { claimJobs, type Claim, type Claimed, type ClaimRequest, type Db } from '@askonce/store'
import { createMetrics, type Log } from '@askonce/telemetry'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { HeldAttempts } from '../../apps/worker/src/held.ts'
import { Taker } from '../../apps/worker/src/taker.ts'

vi.mock('@askonce/store', async (original) => ({
  ...(await original<object>()),
  claimJobs: vi.fn<typeof claimJobs>(),
}))

const nothing: Claimed = { claims: [], turn: { tenant: '', credit: 0 }, more: false, atLimit: false }
let jobs = 0

/** So many claimed jobs. */
function some(count: number, given: Partial<Claimed> = {}): Claimed {
  const claims = Array.from({ length: count }, () => {
    jobs += 1
    return { id: `job-${jobs}`, attempt: 1, tenant_id: 'a', model: 'm', priority: 5, run_at: new Date(), queue_ms: 1 }
  }) as unknown as Claim[]
  return { ...nothing, claims, ...given }
}

/** A taker of three places, whose calls end when the test says so. */
function taken(concurrency = 3) {
  const events: string[] = []
  const log: Log = { event: (name) => void events.push(name), child: () => log }
  const held = new HeldAttempts()
  const ends: ((dueInMs: number | null) => void)[] = []
  const passOn = vi.fn<() => void>()
  const may = { claim: true }
  const taker = new Taker({
    db: {} as Db,
    lane: 'lane',
    concurrency,
    held,
    log,
    metrics: createMetrics(),
    workerId: () => 'worker',
    mayClaim: () => may.claim,
    run: (_claim, attempt) =>
      new Promise((resolve) =>
        ends.push((dueInMs) => {
          held.release(attempt)
          resolve(dueInMs)
        }),
      ),
    passOn,
    onChange: () => undefined,
  })
  const endOne = async (dueInMs: number | null = null): Promise<void> => {
    ends.shift()?.(dueInMs)
    await settle()
  }
  return { taker, held, ends, endOne, passOn, may, events }
}

/** Lets so much time pass, and what is due at its end come to rest. */
async function settle(ms = 0): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms)
  for (let turn = 0; turn < 5; turn += 1) await nextTurn()
}
const asked = (): ClaimRequest[] => vi.mocked(claimJobs).mock.calls.map(([, request]) => request)
/** What the claims to come find; after the last, nothing. */
function finds(...all: Claimed[]): void {
  for (const one of all) vi.mocked(claimJobs).mockResolvedValueOnce(one)
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'] })
  vi.mocked(claimJobs).mockReset().mockResolvedValue(nothing)
})
afterEach(() => {
  vi.useRealTimers()
})

// Promise: a place that is free is filled as soon as there is something for it, whoever was told; and no claim is made without a place.
// Not covered: what a claim picks; test/integration/store/claim-turns.test.ts does.
describe('a taker', () => {
  test('claims for its free places when it is woken, once for wake-ups that come together', async () => {
    finds(some(2))
    const { taker, ends } = taken()
    taker.wake()
    taker.wake()
    await settle()
    expect(asked().map(({ places, lane, workerId }) => [places, lane, workerId])).toEqual([[3, 'lane', 'worker']])
    expect(ends).toHaveLength(2)
    taker.wake()
    await settle()
    expect(asked().at(-1)?.places).toBe(1)
    taker.stop()
  })

  test('makes one claim at a time; what is said meanwhile is looked for by the next', async () => {
    let reply: (claimed: Claimed) => void = () => undefined
    vi.mocked(claimJobs).mockImplementationOnce(() => new Promise((resolve) => (reply = resolve)))
    const { taker } = taken()
    taker.wake()
    await settle()
    taker.wake()
    taker.wake()
    await settle(10)
    expect(asked()).toHaveLength(1)
    reply(nothing)
    await settle()
    expect(asked()).toHaveLength(2)
    await settle(10)
    expect(asked()).toHaveLength(2)
    taker.stop()
  })

  test('with no free place passes a wake-up on, and looks itself when one gets free', async () => {
    finds(some(3))
    const { taker, endOne, passOn } = taken()
    taker.wake()
    await settle()
    expect([taker.wantsWakeUps, passOn.mock.calls.length]).toEqual([false, 0])
    taker.wake()
    await settle()
    expect([asked().length, passOn.mock.calls.length]).toEqual([1, 1])
    await endOne()
    expect(asked().map(({ places }) => places)).toEqual([3, 1])
    taker.stop()
  })

  test('after a claim that took as much as it could goes on by itself with each place that gets free, and wakes others', async () => {
    finds(some(3, { more: true }), some(1, { more: true }), some(1))
    const { taker, ends, endOne, passOn } = taken()
    taker.wake()
    await settle()
    expect([ends.length, passOn.mock.calls.length, taker.wantsWakeUps]).toEqual([3, 1, false])
    await endOne()
    expect(asked()).toHaveLength(2)
    await endOne()
    expect(asked()).toHaveLength(3)
    // The last one has taken the rest: the end of a call is no reason to look again.
    await endOne()
    expect([asked().length, taker.wantsWakeUps]).toEqual([3, true])
    taker.stop()
  })

  test('claims again at once while it has places and there is more', async () => {
    finds(some(100, { more: true }), some(50))
    const { taker } = taken(200)
    taker.wake()
    await settle()
    expect(asked().map(({ places }) => places)).toEqual([100, 100])
    taker.stop()
  })

  test('places that get free in one turn of the event loop are filled by one claim', async () => {
    finds(some(3, { more: true }))
    const { taker, ends } = taken()
    taker.wake()
    await settle()
    for (const end of ends.splice(0)) end(null)
    await settle()
    expect(asked().map(({ places }) => places)).toEqual([3, 3])
    taker.stop()
  })

  test('looks a moment later where another claim is with a tenant that has limits', async () => {
    finds({ ...nothing, more: true })
    const { taker } = taken()
    taker.wake()
    await settle(9)
    expect(asked()).toHaveLength(1)
    await settle(1)
    expect(asked()).toHaveLength(2)
    taker.stop()
  })

  test('where a tenant had as much running as it may have, looks at the end of each call', async () => {
    finds(some(2, { atLimit: true }))
    const { taker, endOne } = taken()
    taker.wake()
    await settle()
    expect(asked()).toHaveLength(1)
    await endOne()
    expect(asked()).toHaveLength(2)
    // That look found no limit.
    await endOne()
    expect(asked()).toHaveLength(2)
    taker.stop()
  })

  test('looks once a second, about, without a word from anybody', async () => {
    const { taker } = taken()
    await settle(799)
    expect(asked()).toHaveLength(0)
    await settle(401)
    expect(asked()).toHaveLength(1)
    await settle(60_000)
    expect(asked().length).toBeGreaterThanOrEqual(50)
    expect(asked().length).toBeLessThanOrEqual(77)
    taker.stop()
  })

  test('looks for a job of its own that comes due again at that moment, and not for what is due in a minute', async () => {
    finds(some(2))
    const { taker, endOne, may } = taken()
    taker.wake()
    await settle()
    may.claim = false
    await endOne(60_000)
    await endOne(300)
    may.claim = true
    await settle(299)
    expect(asked()).toHaveLength(1)
    await settle(1)
    expect(asked()).toHaveLength(2)
    taker.stop()
  })

  test('does not claim while it may not, and remembers that it wanted to', async () => {
    finds(some(1))
    const { taker, may, ends } = taken()
    may.claim = false
    taker.wake()
    await settle()
    expect(asked()).toEqual([])
    may.claim = true
    taker.look()
    await settle()
    expect([asked().length, ends.length]).toEqual([1, 1])
    taker.stop()
  })

  test('a claim whose reply is lost is told, its attempts are never sent, and its number stays open for the beats', async () => {
    vi.mocked(claimJobs).mockRejectedValueOnce(new Error('read ECONNRESET'))
    const { taker, held, ends, events } = taken()
    taker.wake()
    await settle()
    expect(events).toEqual(['loop.failed'])
    expect([ends.length, held.busy, held.firstClaim()]).toEqual([0, 0, 1])
    expect(held.mayHold({ jobId: 'job', attempt: 1, claim: 1 })).toBe(false)
    await settle(1_200)
    expect(asked().map(({ number }) => number)).toEqual([1, 2])
    taker.stop()
  })

  test('claims nothing after its stop: not for a wake-up, a place, the second, nor a job that comes due', async () => {
    finds(some(3, { more: true, atLimit: true }))
    const { taker, endOne } = taken()
    taker.wake()
    await settle()
    taker.stop()
    await endOne(100)
    await endOne()
    taker.wake()
    await settle(10_000)
    expect(asked()).toHaveLength(1)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('stopped while a claim is under way still carries what that brings, and claims no more', async () => {
    let reply: (claimed: Claimed) => void = () => undefined
    vi.mocked(claimJobs).mockImplementationOnce(() => new Promise((resolve) => (reply = resolve)))
    const { taker, ends, held } = taken()
    taker.wake()
    await settle()
    taker.stop()
    expect(held.busy).toBe(1)
    reply(some(2, { more: true }))
    await settle(5_000)
    expect([ends.length, held.size, asked().length]).toEqual([2, 2, 1])
  })
})

describe('attempts in hand', () => {
  test('an open attempt is held, of a claim under way, or was never sent', () => {
    const held = new HeldAttempts()
    const number = held.beginClaim()
    const of = (jobId: string, claim: number) => ({ jobId, attempt: 1, claim })
    expect([held.mayHold(of('one', number)), held.mayHold(of('one', number + 1))]).toEqual([true, false])
    const one = held.hold('one', 1, number)
    held.endClaim(number)
    expect([held.mayHold(of('one', number)), held.mayHold(of('other', number))]).toEqual([true, false])
    expect(held.mayHold({ jobId: 'one', attempt: 2, claim: number })).toBe(false)
    held.release(one)
    expect(held.mayHold(of('one', number))).toBe(false)
  })

  test('a look begins at the first claim that may have something open', () => {
    const held = new HeldAttempts()
    expect(held.firstClaim()).toBe(1)
    const [first, second, third] = [held.beginClaim(), held.beginClaim(), held.beginClaim()]
    held.endClaim(first)
    expect(held.firstClaim()).toBe(second)
    const one = held.hold('one', 1, second)
    held.endClaim(second)
    expect(held.firstClaim()).toBe(second)
    held.release(one)
    expect(held.firstClaim()).toBe(third)
    held.endClaim(third)
    expect(held.firstClaim()).toBe(third + 1)
  })

  test('a claim without a reply is looked at for a minute: so long the server may go on with it', async () => {
    const held = new HeldAttempts()
    const lost = held.beginClaim()
    held.loseClaim(lost)
    held.endClaim(lost)
    const next = held.beginClaim()
    held.endClaim(next)
    await settle(60_000)
    expect(held.firstClaim()).toBe(lost)
    await settle(1)
    expect(held.firstClaim()).toBe(next + 1)
  })

  test('is idle when the last claim has its reply and the last attempt its end', async () => {
    const held = new HeldAttempts()
    const number = held.beginClaim()
    let idle = false
    const waiting = held.untilIdle(1_000).then((is) => (idle = is))
    const one = held.hold('one', 1, number)
    held.endClaim(number)
    await settle()
    expect(idle).toBe(false)
    held.release(one)
    await waiting
    expect(idle).toBe(true)
  })
})
