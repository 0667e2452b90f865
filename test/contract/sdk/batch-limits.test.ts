import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { batchOf, chatLine, lines, startBatchSystem, until, type BatchSystem } from './batch-system.ts'

let system: BatchSystem

beforeAll(async () => {
  system = await startBatchSystem({ ASKONCE_MAX_REQUEST_BYTES: '2048' })
})
afterAll(() => system.stop())

describe('a file beyond a limit', () => {
  it('names a request that is too large, and reads the lines behind it', async () => {
    const large = chatLine('large', { content: 'x'.repeat(2_048) })
    const content = `${chatLine('a')}\n${large}\n${chatLine('a')}\n`
    const batch = await until(system, (await batchOf(system, content)).id, ['failed', 'completed'])
    expect(batch.errors?.data).toMatchObject([
      { code: 'invalid_request', line: 2, param: '/body' },
      { code: 'duplicate_custom_id', line: 3 },
    ])
  })

  it('stops at a line that is longer than any request could be, of any length', async () => {
    // The envelope may have 64 KiB.
    const atMost = 2_048 + 64 * 1024
    const long = (bytes: number): string => chatLine('long').padEnd(bytes)
    const good = await until(system, (await batchOf(system, `${long(atMost - 1)}\n`)).id, ['failed', 'completed'])
    expect(good.errors).toBeNull()
    for (const bytes of [atMost + 1, 3_000_000]) {
      const content = `\n${chatLine('a')}\n${long(bytes)}\n${chatLine('a')}\n`
      const batch = await until(system, (await batchOf(system, content)).id, ['failed', 'completed'])
      expect(batch.status).toBe('failed')
      expect(batch.errors?.data).toMatchObject([{ code: 'invalid_request', line: 3 }])
      expect(batch.errors?.data?.[0]?.message).toContain('longer than this server accepts')
    }
    expect(await system.sql('select 1 from batch_lines where custom_id = $1', ['a'])).toEqual([])
  })

  it('has a request more than allowed: nothing of it runs, and no line is left', async () => {
    const before = system.upstream.calls()
    const content = lines(50_001, 'many')
    const batch = await until(system, (await batchOf(system, content)).id, ['failed', 'completed'], 50_000)
    expect(batch.status).toBe('failed')
    expect(batch.errors?.data).toMatchObject([{ code: 'too_many_tasks', line: null, param: null }])
    expect(batch.errors?.data?.[0]?.message).toContain('50000')
    expect(await system.sql('select 1 from batch_lines where custom_id like $1 limit 1', ['many-%'])).toEqual([])
    expect(system.upstream.calls()).toBe(before)
  })
})
