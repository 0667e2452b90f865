import { GroupCommit, OverloadedError, type GroupCommitOptions } from '@askonce/store'
import { describe, expect, it } from 'vitest'

const dataError = (): Error => Object.assign(new Error('bad value'), { code: '22P02' })

interface Batch {
  items: string[]
  finish: () => void
  fail: (error: unknown) => void
}

/** A group whose batches end when the test says so; `next()` resolves with the batch that starts next. */
function held(options: Partial<GroupCommitOptions<string, string>> = {}) {
  const batches: Batch[] = []
  const rows: number[] = []
  let arrived = (): void => undefined
  let read = 0
  const group = new GroupCommit<string, string>({
    commit: (items) =>
      new Promise((resolve, reject) => {
        batches.push({ items, finish: () => resolve(items.map((item) => item.toUpperCase())), fail: reject })
        arrived()
      }),
    maxRows: 3,
    maxBytes: 1_000,
    maxWaiting: 10,
    concurrency: 1,
    bytesOf: (item) => item.length,
    onBatch: (count) => rows.push(count),
    ...options,
  })
  const next = async (): Promise<Batch> => {
    while (batches.length <= read) await new Promise<void>((resolve) => (arrived = resolve))
    read += 1
    return batches[read - 1] as Batch
  }
  return { group, next, batches, rows }
}

describe('batching', () => {
  it('sends what came in one turn together, in order, and answers each by its own result', async () => {
    const { group, next, rows } = held()
    const results = Promise.all(['a', 'b', 'c'].map((item) => group.submit(item)))
    const batch = await next()
    expect(batch.items).toEqual(['a', 'b', 'c'])
    batch.finish()
    await expect(results).resolves.toEqual(['A', 'B', 'C'])
    expect(rows).toEqual([3])
  })

  it('gathers behind a running batch, bounded by rows', async () => {
    const { group, next } = held()
    const results = [group.submit('a')]
    const first = await next()
    results.push(...['b', 'c', 'd', 'e'].map((item) => group.submit(item)))
    expect(group.depth).toBe(4)
    first.finish()
    const second = await next()
    expect(second.items).toEqual(['b', 'c', 'd'])
    second.finish()
    const third = await next()
    expect(third.items).toEqual(['e'])
    third.finish()
    await expect(Promise.all(results)).resolves.toEqual(['A', 'B', 'C', 'D', 'E'])
    expect(group.depth).toBe(0)
  })

  it('is bounded by bytes, and takes a larger item alone', async () => {
    const { group, next } = held({ maxBytes: 10 })
    const sizes = [4, 6, 1, 50, 3]
    const results = Promise.all(sizes.map((size) => group.submit('x'.repeat(size))))
    const seen: number[][] = []
    while (seen.flat().length < sizes.length) {
      const batch = await next()
      seen.push(batch.items.map((item) => item.length))
      batch.finish()
    }
    expect(seen).toEqual([[4, 6], [1], [50], [3]])
    await results
  })

  it('never puts equal identities into one batch, and keeps their order', async () => {
    const { group, next } = held({ maxRows: 10, identityOf: (item) => item[0] as string })
    const results = Promise.all(['a1', 'a2', 'b1', 'a3', 'b2'].map((item) => group.submit(item)))
    for (const expected of [['a1', 'b1'], ['a2', 'b2'], ['a3']]) {
      const batch = await next()
      expect(batch.items).toEqual(expected)
      batch.finish()
    }
    await expect(results).resolves.toEqual(['A1', 'A2', 'B1', 'A3', 'B2'])
  })
})

describe('concurrency', () => {
  it('runs so many batches at once and no more; a slow one does not hold up the next', async () => {
    const { group, next, batches } = held({ maxRows: 1, concurrency: 2 })
    const results = ['a', 'b', 'c'].map((item) => group.submit(item))
    const slow = await next()
    const quick = await next()
    await new Promise((resolve) => setImmediate(resolve))
    expect(batches).toHaveLength(2)
    quick.finish()
    const third = await next()
    expect(third.items).toEqual(['c'])
    third.finish()
    await expect(results[1]).resolves.toBe('B')
    await expect(results[2]).resolves.toBe('C')
    slow.finish()
    await expect(results[0]).resolves.toBe('A')
  })
})

describe('overload', () => {
  it('refuses one more than may wait, and takes again when there is room', async () => {
    const { group, next } = held({ maxWaiting: 2, maxRows: 2 })
    const running = group.submit('a')
    const first = await next()
    const waiting = [group.submit('b'), group.submit('c')]
    await expect(group.submit('d')).rejects.toBeInstanceOf(OverloadedError)
    first.finish()
    const second = await next()
    const later = group.submit('e')
    second.finish()
    const third = await next()
    third.finish()
    await expect(Promise.all([running, ...waiting, later])).resolves.toEqual(['A', 'B', 'C', 'E'])
  })
})

describe('failure', () => {
  it('isolates every bad row by halving; the others are committed', async () => {
    const committed: string[][] = []
    const group = new GroupCommit<string, string>({
      commit: (items) => {
        if (items.some((item) => item.startsWith('bad'))) return Promise.reject(dataError())
        committed.push(items)
        return Promise.resolve(items)
      },
      maxRows: 100,
      maxBytes: 1_000,
      maxWaiting: 100,
      concurrency: 1,
      bytesOf: () => 1,
    })
    const items = Array.from({ length: 33 }, (_, index) =>
      index === 0 || index === 20 ? `bad${index}` : `good${index}`,
    )
    const results = await Promise.allSettled(items.map((item) => group.submit(item)))
    expect(results.map(({ status }) => status)).toEqual(
      items.map((item) => (item.startsWith('bad') ? 'rejected' : 'fulfilled')),
    )
    expect(committed.flat().toSorted()).toEqual(items.filter((item) => item.startsWith('good')).toSorted())
    expect(results[20]).toMatchObject({ reason: { code: '22P02' } })
  })

  it('of the server is the failure of the whole batch, without another try', async () => {
    const { group, next, batches } = held()
    const results = Promise.allSettled(['a', 'b'].map((item) => group.submit(item)))
    const batch = await next()
    const error = Object.assign(new Error('terminating connection'), { code: '57P01' })
    batch.fail(error)
    expect(await results).toMatchObject([{ reason: error }, { reason: error }])
    expect(batches).toHaveLength(1)
    const later = group.submit('c')
    const after = await next()
    after.finish()
    await expect(later).resolves.toBe('C')
  })

  it('of a commit that throws before it returns a promise is rejected too', async () => {
    const { group } = held({
      commit: () => {
        throw new Error('broken')
      },
    })
    await expect(group.submit('a')).rejects.toThrow('broken')
  })
})
