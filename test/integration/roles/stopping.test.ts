import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startSystem, type System } from '../../fault/system.ts'

const neverCloses = new URL('never-closes.js', import.meta.url).href
const leaveOpen = new URL('leave-open.js', import.meta.url).href

// A process that its supervisor stops has to end, whatever is left open in it.
describe('a server that is stopped', () => {
  let system: System
  beforeAll(async () => {
    system = await startSystem('embedded')
  })
  afterAll(() => system.stop())

  test.each(['api', 'worker', 'janitor'] as const)('%s ends, and says what was left open', async (role) => {
    const child = system.spawn(role, { NODE_OPTIONS: `--import=${leaveOpen}` })
    await child.waitForLine(new RegExp(`"event":"${role}\\.started"`), 60_000)
    child.signal('SIGTERM')
    expect(await child.exited).toMatchObject({ code: 0, signal: null })
    expect(child.stderr.join('\n')).toMatch(/stopped, with something left open: .*Timeout/)
  })

  test('a stop that has no end is cut short, and says what it was waiting for', async () => {
    const child = system.spawn('api', { NODE_OPTIONS: `--import=${neverCloses}` })
    await child.waitForLine(/"event":"api\.started"/, 60_000)
    const sinceMs = performance.now()
    child.signal('SIGTERM')
    expect(await child.exited).toMatchObject({ code: 1, signal: null })
    // The API's drain of 10 s, and 15 s for closing.
    expect(performance.now() - sinceMs).toBeLessThan(30_000)
    expect(child.stdout.join('\n')).toMatch(/"event":"process\.stopped_late".*still under way: the api; still open: /)
    expect(child.stderr.join('\n')).toMatch(/stopping took longer than it may \(25 s\); still under way: the api/)
  })

  test('a worker that is stopped while BullMQ still connects ends as well', async () => {
    for (let times = 0; times < 8; times += 1) {
      const worker = system.spawn('worker')
      await worker.waitForLine(/"event":"worker\.started"/, 60_000)
      worker.signal('SIGTERM')
      expect(await worker.exited).toMatchObject({ code: 0, signal: null })
      expect(worker.stderr).toEqual([])
    }
  })
})
