import {
  Askonce,
  AskonceConnectionError,
  type Fetch,
  type Job,
  type KeyedSubmission,
  type RunResult,
} from '@askonce/client'
import { expect, it } from 'vitest'

const textOf = (init: RequestInit | undefined): string => (typeof init?.body === 'string' ? init.body : '')

interface FakeJob {
  id: string
  state: Job['state']
  /** Looks until it settles. */
  looks: number
}

/** A server whose jobs settle after so many looks; it counts what it would pay for. */
function fakeServer(looksOf: (key: string) => number = () => 1) {
  const jobs = new Map<string, FakeJob>()
  const state = {
    calls: 0,
    mostUnsettled: 0,
    bulkKeys: [] as string[],
    /** Thrown by the next requests. */
    broken: 0,
    forget: new Set<string>(),
  }
  const view = (job: FakeJob) => ({ id: job.id, key: job.id.slice(3), state: job.state })
  const fetch: Fetch = async (input, init) => {
    await new Promise((resolve) => setImmediate(resolve))
    init?.signal?.throwIfAborted()
    if (state.broken > 0) {
      state.broken -= 1
      throw new TypeError('fetch failed')
    }
    const { pathname } = new URL(input instanceof Request ? input.url : input)
    if (pathname.endsWith('/bulk')) {
      const items = textOf(init)
        .split('\n')
        .map((line) => JSON.parse(line) as KeyedSubmission)
      const data = items.map(({ key }, index) => {
        state.bulkKeys.push(key)
        if (key.startsWith('bad')) return { index, status: 400, error: { code: 'invalid_request', message: 'bad' } }
        let job = jobs.get(key)
        if (job === undefined) {
          state.calls += 1
          const looks = looksOf(key)
          job = { id: `id-${key}`, state: looks === 0 ? 'succeeded' : 'running', looks }
          jobs.set(key, job)
        }
        return { index, status: 202, job: view(job) }
      })
      const unsettled = [...jobs.values()].filter((job) => job.state === 'running').length
      state.mostUnsettled = Math.max(state.mostUnsettled, unsettled)
      return Response.json({ data })
    }
    const key = decodeURIComponent(pathname.split('/').at(-1) ?? '').slice(3)
    const job = jobs.get(key)
    if (job === undefined || state.forget.delete(key)) {
      jobs.delete(key)
      return Response.json({ code: 'not_found', retryable: false }, { status: 404 })
    }
    job.looks -= 1
    if (job.looks <= 0) job.state = key.startsWith('held') ? 'uncertain' : 'succeeded'
    return Response.json(view(job))
  }
  return { client: new Askonce({ fetch, retry: { maxRetries: 2 } }), state }
}

const item = (key: string): KeyedSubmission => ({ key, operation: 'chat.completions', request: { model: 'm' } })
const items = (count: number) => Array.from({ length: count }, (_, index) => item(`k${index}`))

async function collect(results: AsyncIterable<RunResult>, most = Infinity): Promise<RunResult[]> {
  const list: RunResult[] = []
  for await (const result of results) {
    list.push(result)
    if (list.length >= most) break
  }
  return list
}

it('yields one result for each item, whatever became of it', async () => {
  const { client } = fakeServer((key) => (key === 'k1' ? 0 : 1))
  const results = await collect(client.runAll([item('k0'), item('k1'), item('bad'), item('held')]))
  expect(results.toSorted((a, b) => a.index - b.index)).toMatchObject([
    { index: 0, key: 'k0', job: { state: 'succeeded' }, error: null },
    { index: 1, key: 'k1', job: { state: 'succeeded' }, error: null },
    { index: 2, key: 'bad', job: null, error: { code: 'invalid_request', status: 400 } },
    { index: 3, key: 'held', job: { state: 'uncertain' }, error: null },
  ])
})

it('ends without items', async () => {
  expect(await collect(fakeServer().client.runAll([]))).toEqual([])
})

it('yields what is finished while others are not, and while items are still to come', async () => {
  const { client } = fakeServer((key) => (key === 'k0' ? 3 : 1))
  let release: (() => void) | undefined
  async function* slowly() {
    yield* items(200)
    await new Promise<void>((resolve) => {
      release = resolve
    })
    yield item('last')
  }
  const keys: string[] = []
  for await (const { key } of client.runAll(slowly(), { maxUnsettled: 200 })) {
    keys.push(key)
    if (keys.length === 200) release?.()
  }
  expect(keys).toHaveLength(201)
  expect(keys.indexOf('k0')).toBeGreaterThan(100)
  expect(keys.at(-1)).toBe('last')
})

it('submits no more than may be unsettled, reads items as it needs them, and answers each exactly once', async () => {
  const { client, state } = fakeServer()
  let read = 0
  function* counted() {
    for (const one of items(2_000)) {
      read += 1
      yield one
    }
  }
  const results = client.runAll(counted(), { maxUnsettled: 100, maxWaiting: 20 })
  const first = await results.next()
  expect(first.done).toBe(false)
  expect(read).toBeLessThan(1_000)
  const rest = await collect(results)
  const keys = new Set(rest.map(({ key }) => key))
  expect([rest.length, keys.size, read]).toEqual([1_999, 1_999, 2_000])
  expect(state.mostUnsettled).toBeLessThanOrEqual(100)
  expect(state.calls).toBe(2_000)
})

it('run again it goes on where it was: what has been asked is not paid for again', async () => {
  const { client, state } = fakeServer()
  const list = items(300)
  expect(await collect(client.runAll(list, { maxUnsettled: 100 }), 50)).toHaveLength(50)
  expect(state.calls).toBeLessThan(300)
  const results = await collect(client.runAll(list))
  expect(new Set(results.map(({ key }) => key)).size).toBe(300)
  expect(state.calls).toBe(300)
})

it('outlasts lost connections, and ends with the error of those that last', async () => {
  const { client, state } = fakeServer()
  state.broken = 2
  expect(await collect(client.runAll(items(5)))).toHaveLength(5)
  state.broken = Infinity
  await expect(collect(client.runAll(items(6)))).rejects.toBeInstanceOf(AskonceConnectionError)
})

it('asks anew what was gone before it could be read, but not for ever', async () => {
  const { client, state } = fakeServer((key) => (key === 'k1' ? 1 : 2))
  state.forget.add('k1')
  const results = await collect(client.runAll([item('k0'), item('k1')]))
  expect(results.map(({ error }) => error)).toEqual([null, null])
  expect(state.bulkKeys.filter((key) => key === 'k1')).toHaveLength(2)

  const fleeting = fakeServer()
  fleeting.state.forget.has = () => true
  fleeting.state.forget.delete = () => true
  const [gone] = await collect(fleeting.client.runAll([item('k0')]))
  expect(gone).toMatchObject({ key: 'k0', job: null, error: { code: 'not_found' } })
  expect(fleeting.state.bulkKeys).toHaveLength(3)
})

it('ends with what goes wrong in the items, and with the signal', async () => {
  function* wrong() {
    yield item('k0')
    throw new Error('no more lines')
  }
  await expect(collect(fakeServer().client.runAll(wrong()))).rejects.toThrow('no more lines')
  const controller = new AbortController()
  const run = fakeServer(() => Infinity).client.runAll(items(3), { signal: controller.signal })
  const next = run.next()
  controller.abort(new Error('enough'))
  await expect(next).rejects.toThrow('enough')
  const late = fakeServer().client.runAll(items(3), { signal: controller.signal })
  await expect(late.next()).rejects.toThrow('enough')
})

it('closes the items of a caller who leaves', async () => {
  let isClosed = false
  function* closing() {
    try {
      for (;;) yield item(`k${Math.random()}`)
    } finally {
      isClosed = true
    }
  }
  expect(await collect(fakeServer().client.runAll(closing(), { maxUnsettled: 10 }), 3)).toHaveLength(3)
  await expect.poll(() => isClosed, { timeout: 5_000 }).toBe(true)
})
