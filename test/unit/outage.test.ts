import { Outage, type Log } from '@askonce/telemetry'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

test('an outage is told once, and its end once nothing has failed for a second', () => {
  const lines: string[] = []
  const log: Log = { event: (name) => void lines.push(name), child: () => log }
  const outage = new Outage(log, 'store')
  outage.worked()
  expect(lines).toEqual([])
  for (let failure = 0; failure < 3; failure += 1) outage.failed(new Error('away'))
  vi.advanceTimersByTime(900)
  // One connection works again, another one still fails.
  outage.worked()
  outage.failed(new Error('a straggler'))
  vi.advanceTimersByTime(900)
  outage.worked()
  expect(lines).toEqual(['store.unavailable'])
  vi.advanceTimersByTime(200)
  outage.worked()
  outage.worked()
  expect(lines).toEqual(['store.unavailable', 'store.recovered'])
  outage.failed(new Error('again'))
  expect(lines).toEqual(['store.unavailable', 'store.recovered', 'store.unavailable'])
})
