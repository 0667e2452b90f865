import type { Log, LogFields } from '@askonce/telemetry'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { WaitNotice } from '../../apps/cli/src/roles/wait-notice.ts'

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

it('is said at once, when the words change, and every half minute; its end only where there was one', () => {
  const lines: [string, LogFields | undefined][] = []
  const log: Log = { event: (name, fields) => void lines.push([name, fields]), child: () => log }
  new WaitNotice(log).over()
  expect(lines).toEqual([])

  const notice = new WaitNotice(log)
  for (let second = 0; second < 70; second += 1) {
    notice.say(second < 5 ? 'it is away' : 'a standby', 'promote it')
    vi.advanceTimersByTime(1_000)
  }
  notice.over()
  expect(lines).toEqual([
    ['store.unavailable', { reason: 'it is away' }],
    ['store.waiting', { reason: 'a standby', duration_ms: 5_000 }],
    ['store.waiting', { reason: 'a standby', duration_ms: 35_000 }],
    ['store.waiting', { reason: 'a standby', duration_ms: 65_000 }],
    ['store.recovered', { duration_ms: 70_000 }],
  ])
})
