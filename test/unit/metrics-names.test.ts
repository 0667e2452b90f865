import { spawnSync } from 'node:child_process'
import { createMetrics } from '@askonce/telemetry'
import { expect, it } from 'vitest'

/** A page with every metric that any process shows. */
async function everyMetric(): Promise<string> {
  const metrics = createMetrics()
  for (const one of Object.values(metrics)) {
    if (typeof one !== 'object' || !('set' in one)) continue
    // Gauges of workers are absent until they are set.
    if ('labelNames' in one && (one.labelNames as string[]).length === 0) one.set(1)
  }
  metrics.setLaneStates([{ name: 'openai', state: 'open' }])
  metrics.callDuration.observe({ lane: 'openai', outcome: 'answered' }, 1)
  metrics.submissions.inc({ outcome: 'new' })
  metrics.collectFromDatabase(
    () =>
      Promise.resolve({
        jobs: { queued: 1 },
        waiting: { lane: 2, place: 1 },
        oldestQueuedSeconds: 1,
        oldestUncertainSeconds: 1,
        workersAlive: 1,
        openAttempts: 1,
      }),
    () => Promise.resolve(),
  )
  return (await metrics.render()).text
}

/** What `promtool check metrics` complains of, as far as a page without promtool can be judged. */
function complaints(page: string): string[] {
  const types = [...page.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = '', type = '']) => ({ name, type }))
  const helped = new Set([...page.matchAll(/^# HELP (\S+) \S/gm)].map(([, name]) => name))
  expect(types.length).toBeGreaterThan(40)
  const faults: [text: string, isFault: (name: string, type: string) => boolean][] = [
    ['has no help text', (name) => !helped.has(name)],
    ['non-counter with _total', (name, type) => type !== 'counter' && name.endsWith('_total')],
    ['counter without _total', (name, type) => type === 'counter' && !name.endsWith('_total')],
    ['has a suffix of histograms', (name, type) => type !== 'histogram' && /_(?:count|sum|bucket)$/.test(name)],
    ['unit or case', (name) => /[A-Z]|_(?:milliseconds|ms|minutes|hours|kilobytes|mb|percent)(?:_|$)/.test(name)],
    ['names its type', (name, type) => new RegExp(`_${type}(?:_|$)`).test(name)],
  ]
  return types.flatMap(({ name, type }) =>
    faults.filter(([, isFault]) => isFault(name, type)).map(([text]) => `${name} ${text}`),
  )
}

it('metrics of this program and of Node are named as promtool wants it', async () => {
  const page = await everyMetric()
  expect(complaints(page)).toEqual([])
  // Where it is not installed the rules above have spoken.
  const { error, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: page, encoding: 'utf8' })
  expect(error === undefined ? stdout + stderr : '').toBe('')
})

it('and the rules find what promtool found', () => {
  const gauges = Array.from({ length: 41 }, (_, n) => `# HELP g${n} x\n# TYPE g${n} gauge\ng${n} 1\n`).join('')
  const bad =
    '# HELP active_total x\n# TYPE active_total gauge\nactive_total 1\n# HELP calls x\n# TYPE calls counter\ncalls 1\n'
  expect(complaints(gauges + bad)).toEqual(['active_total non-counter with _total', 'calls counter without _total'])
})
