import { describe, expect, it } from 'vitest'
import { predict } from '../../bench/scale/model.ts'

describe('the model of docs/scaling.md', () => {
  const setup = { cores: 8, usable: 1, processes: 1, calls: null }

  it('is bound by what can be used of all cores when everything shares them', () => {
    const one = { perSecond: 900, costs: { api: 0.5, postgres: 0.25, generator: 0.25 } }
    expect(predict(one, { ...setup, cores: 1, usable: 0.8 })).toEqual({ perSecond: 800, bound: 'all cores' })
  })

  it('is bound by what one process did, times the processes', () => {
    const one = { perSecond: 1800, costs: { api: 0.5, postgres: 0.25 } }
    expect(predict(one, setup)).toEqual({ perSecond: 1800, bound: 'one core for each process' })
    expect(predict(one, { ...setup, processes: 2 }).perSecond).toBe(3600)
  })

  it('is bound by the one thread of Redis', () => {
    const one = { perSecond: 1800, costs: { api: 0.5, redis: 0.25 } }
    expect(predict(one, { ...setup, processes: 4 })).toEqual({ perSecond: 4000, bound: 'one core for redis' })
  })

  it('is bound by the calls under way', () => {
    const calls = { each: 25, ms: 200 }
    const one = { perSecond: 4000, costs: { worker: 0.1 } }
    expect(predict(one, { ...setup, processes: 4, calls })).toEqual({ perSecond: 500, bound: 'calls under way' })
  })
})
