import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, chat, startSystem, until, type System } from './system.ts'
import { healthPort } from './worker-health.ts'

const mebibyte = 1024 * 1024
const answers = 300

// DESIGN.md §4: the worker keeps answers in hand and on disk while Postgres is away; the memory does not grow with their number.
// Not covered: what the calls under way hold, which grows with the concurrency, and a spool that cannot be written (spool-trouble.test.ts).
describe('FAULTS 5, many large answers and Postgres gone (redis form)', () => {
  let system: System
  beforeAll(async () => {
    system = await startSystem('redis')
  })
  afterAll(() => system.stop())

  test('300 answers of 1 MiB: the memory holds a part of them, and each is stored and was paid once', async () => {
    // Not covered: answers that come faster than the disk takes them. They are in memory until they are on it.
    const { address } = await system.api()
    await system.started('janitor')
    const health = await healthPort()
    const directory = join(system.directory, 'worker')
    const worker = await system.started('worker', {
      ASKONCE_DATA_DIR: directory,
      ASKONCE_CONCURRENCY: String(answers),
      ...health.env,
    })
    const markers = Array.from({ length: answers }, (_, index) => `large-${index}`)
    await system.upstream.script(
      markers.map((marker, index) => ({
        kind: 'answer',
        answerBytes: mebibyte,
        delayMs: 12_000 + index * 60,
        match: { marker },
      })),
    )
    await fetch(`${address}/v1/jobs/bulk`, {
      method: 'POST',
      headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
      body: JSON.stringify({
        jobs: markers.map((marker) => Object.assign(chat(marker), { key: marker, on_uncertain: 'hold' })),
      }),
    })
    await until(
      () => system.upstream.calls(),
      (calls) => calls === answers,
      60_000,
    )
    await system.postgres.kill()
    const resident = async (): Promise<number> => (await health.metric('process_resident_memory_bytes')) ?? 0
    const before = await resident()
    let most = before
    const kept = await until(
      async () => {
        most = Math.max(most, await resident())
        return (await health.metric('askonce_unstored_answers{where="disk"}')) ?? 0
      },
      (count) => count >= answers * 0.9,
      90_000,
    )
    expect((await readdir(join(directory, 'spool'))).length).toBeGreaterThanOrEqual(kept)

    await system.postgres.restart()
    await until(
      async () => {
        most = Math.max(most, await resident())
        return system.sql<{ count: number }>(`select count(*)::int as count from jobs where state = 'succeeded'`)
      },
      ([row]) => row?.count === answers,
      90_000,
    )
    const growth = Math.round((most - before) / mebibyte)
    process.stdout.write(`memory of the worker: ${Math.round(before / mebibyte)} MiB, grew by ${growth} MiB\n`)
    // About 170 MiB on an idle machine. If the answers stayed, it would be more than they are large.
    expect(growth).toBeLessThan(answers)
    expect(await system.upstream.calls()).toBe(answers)
    const [sizes] = await system.sql(
      'select count(*)::int as rows, sum(paid)::int as paid, min(coalesce(response_bytes, length(response))) as least from jobs join answers on job_id = id',
    )
    expect(sizes).toMatchObject({ rows: answers, paid: answers })
    expect(Number(sizes?.['least'])).toBeGreaterThan(mebibyte)
    const ends = await system.sql('select outcome, billing, count(*)::int as count from attempts group by 1, 2')
    expect(ends).toEqual([{ outcome: 'answered', billing: 'billed', count: answers }])
    await until(
      () => readdir(join(directory, 'spool')),
      (files) => files.length === 0,
      10_000,
    )
    worker.signal('SIGTERM')
    expect(await worker.exited).toMatchObject({ code: 0 })
  }, 240_000)
})
