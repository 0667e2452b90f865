import { EventEmitter } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { ReadPool } from '@askonce/store'
import { describe, expect, it, vi } from 'vitest'
import { CostlyReads, readConnections } from '../../apps/api/src/costly-reads.ts'

/** A pool whose reads end when they are told to, or when their signal aborts. */
function harness() {
  const open: { tenant: string; end: () => void }[] = []
  const pool = {
    run: async (signal: AbortSignal, read: (db: never) => Promise<unknown>) => {
      const tenant = (await read(undefined as never)) as string
      return new Promise((resolve, reject) => {
        const leave = (): void => void open.splice(open.indexOf(entry), 1)
        const end = (): void => {
          leave()
          resolve(tenant)
        }
        const entry = { tenant, end }
        signal.addEventListener('abort', () => {
          leave()
          reject(new Error('cancelled'))
        })
        open.push(entry)
      })
    },
  } as unknown as ReadPool
  const reads = new CostlyReads(pool)
  const ask = (tenantId: string, raw = new EventEmitter()): Promise<unknown> =>
    reads.run({ tenantId, limitMs: 60_000, reply: { raw: raw as ServerResponse } }, () => Promise.resolve(tenantId))
  const tenants = (): string => open.map(({ tenant }) => tenant).join('')
  return { ask, tenants, endOne: () => open[0]?.end(), open }
}

const settle = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))

describe('costly reads', () => {
  it('of one tenant take two places, whatever it asks for; others find theirs, in turn', async () => {
    const { ask, tenants, endOne } = harness()
    const all = [...Array.from({ length: 20 }, () => ask('a')), ask('b'), ask('c'), ask('c'), ask('c')]
    await settle()
    expect(tenants()).toBe('aabc')
    expect(tenants()).toHaveLength(readConnections)
    const order: string[] = []
    for (let left = all.length; left > 0; left -= 1) {
      order.push(tenants())
      endOne()
      await settle()
    }
    expect(Math.max(...order.map((now) => now.split('a').length - 1))).toBe(2)
    expect(order.slice(1, 4).some((now) => now.split('c').length === 3)).toBe(true)
    expect(await Promise.all(all)).toHaveLength(24)
  })

  it('end when their client goes, and the next one begins', async () => {
    const { ask, tenants, open, endOne } = harness()
    const client = new EventEmitter()
    const first = ask('a', client)
    const others = [ask('a'), ask('a')]
    await settle()
    expect(tenants()).toBe('aa')
    Object.assign(client, { destroyed: true })
    client.emit('close')
    await expect(first).rejects.toMatchObject({ code: 'rate_limited' })
    await settle()
    expect(tenants()).toBe('aa')
    while (open.length > 0) endOne()
    await Promise.all(others)
  })

  it('that wait too long, or are too many, are told to come again', async () => {
    vi.useFakeTimers()
    const { ask } = harness()
    const begun = [ask('a'), ask('a')]
    const waiting = Array.from({ length: 100 }, () =>
      ask('a').catch((error: unknown) => (error as { code: string }).code),
    )
    await expect(ask('a')).rejects.toMatchObject({ code: 'rate_limited', status: 429 })
    await vi.advanceTimersByTimeAsync(5_001)
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(['rate_limited']))
    vi.useRealTimers()
    void begun
  })
})
