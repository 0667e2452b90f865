import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { spawnNode, type Child } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, chat, startSystem, until, type System } from './system.ts'

const askonce = new URL('../../apps/cli/bin/askonce.js', import.meta.url).pathname
const lines = 200

// DESIGN.md §1.2 and §1.3: a producer that crashes sends everything again; only missing keys are paid for.
// Not covered: an input that is edited between the runs. A line without a key of its own then has another key, and is paid for.
describe('askonce batch, killed and run again', () => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem('redis')
    address = (await system.api()).address
    await Promise.all([system.started('worker', { ASKONCE_CONCURRENCY: '10' }), system.started('janitor')])
  })
  afterAll(() => system.stop())

  test('kill -9 in the middle: the second run pays only for what is missing and ends with the same complete file', async () => {
    const input = join(system.directory, 'input.jsonl')
    const jobs = Array.from({ length: lines }, (_, index) => ({
      ...(index % 2 === 0 ? { key: `line-${index}` } : {}),
      ...chat(`line-${index}`, `question ${index}`),
    }))
    await writeFile(input, jobs.map((job) => `${JSON.stringify(job)}\n`).join(''))
    await system.upstream.script([{ kind: 'answer', delayMs: 300, times: lines }])
    const batch = (out: string): Child =>
      spawnNode(askonce, {
        args: ['batch', input, '--out', out],
        env: { ASKONCE_URL: address, ASKONCE_API_KEY: apiKey },
      })
    const out = join(system.directory, 'out.jsonl')

    const killed = batch(out)
    const written = async (): Promise<number> => (await readFile(out, 'utf8').catch(() => '')).split('\n').length - 1
    await until(written, (count) => count >= 40, 60_000)
    await killed.kill()
    expect(await written()).toBeLessThan(lines)

    expect((await batch(out).exited).code).toBe(0)
    const complete = await readFile(out, 'utf8')
    const answers = complete
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { index: number; state: string })
    expect(answers.map(({ index }) => index)).toEqual(jobs.map((_, index) => index))
    expect(new Set(answers.map(({ state }) => state))).toEqual(new Set(['succeeded']))

    const third = join(system.directory, 'third.jsonl')
    expect((await batch(third).exited).code).toBe(0)
    expect(await readFile(third, 'utf8')).toBe(complete)
    const calls = Object.values(await system.upstream.callsBy())
    expect(calls).toHaveLength(lines)
    expect(calls.filter((count) => count !== 1)).toEqual([])
  }, 180_000)
})
