import { describe, expect, it } from 'vitest'
import { predict } from '../../bench/scale/model.ts'

describe('the model of docs/scaling.md', () => {
  const none = { cores: 8, processes: {}, calls: null }

  it('is bound by all cores when everything shares them', () => {
    expect(predict({ api: 0.5, postgres: 0.25, generator: 0.25 }, { ...none, cores: 1 })).toEqual({
      perSecond: 1000,
      bound: 'all cores',
    })
  })

  it('is bound by one core of a single-threaded part, and less so by two of them', () => {
    const costs = { api: 0.5, postgres: 0.25 }
    expect(predict(costs, none)).toEqual({ perSecond: 2000, bound: 'one core for each api' })
    expect(predict(costs, { ...none, processes: { api: 2 } }).perSecond).toBe(4000)
  })

  it('is bound by the calls under way', () => {
    const calls = { each: 25, ms: 200 }
    expect(predict({ worker: 0.1 }, { ...none, processes: { worker: 4 }, calls })).toEqual({
      perSecond: 500,
      bound: 'calls under way',
    })
  })
})
