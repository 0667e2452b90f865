import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, call, chat, startSystem, submit, until, type System } from './system.ts'
import { healthPort } from './worker-health.ts'

const mebibyte = 1024 * 1024

// DESIGN.md §1: nobody waits because of somebody else, and no answer is paid for twice because of its size.
// Not covered: many such answers at the same time, which the worker's memory has to hold.
// Each is bounded by the steps that it waits for.
describe('outsized answers (redis form)', { timeout: 300_000 }, () => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem('redis')
    ;({ address } = await system.api())
    await system.started('janitor')
  })
  afterAll(() => system.stop())

  const script = (sizes: Record<string, number>): Promise<void> =>
    system.upstream.script(
      Object.entries(sizes).map(([marker, answerBytes]) => ({ kind: 'answer', answerBytes, match: { marker } })),
    )
  const state = async (key: string): Promise<string> =>
    (await system.sql<{ state: string }>('select state from jobs where idempotency_key = $1', [key]))[0]?.state ?? ''

  /** Calls of somebody else, one after the other, until `stop`; how long each took, in milliseconds. */
  function others(name: string): { stop: () => Promise<number>; count: () => number } {
    const stopping = new AbortController()
    const took: number[] = []
    const run = async (): Promise<void> => {
      for (let number = 0; !stopping.signal.aborted; number += 1) {
        const began = performance.now()
        // Of the simulated provider: the upstream is busy with writing what it sends.
        const asked = { ...chat('other'), request: { ...chat('other').request, model: 'simulated/small' } }
        const reply = await submit(address, `${name}-${number}`, asked, 30)
        expect(reply.body.state).toBe('succeeded')
        took.push(performance.now() - began)
      }
    }
    const running = run()
    return {
      count: () => took.length,
      async stop() {
        stopping.abort()
        await running
        const sorted = took.toSorted((a, b) => a - b)
        const p99 = sorted[Math.floor(sorted.length * 0.99)] ?? Infinity
        process.stdout.write(`${name}: ${sorted.length} calls, p99 ${Math.round(p99)} ms\n`)
        return p99
      },
    }
  }

  /** Reads a body to its end without holding it. */
  async function length(path: string): Promise<number> {
    const response = await fetch(address + path, { headers: { authorization: `Bearer ${apiKey}` } })
    expect(response.status).toBe(200)
    let bytes = 0
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) bytes += chunk.length
    expect(bytes).toBe(Number(response.headers.get('content-length')))
    return bytes
  }

  test('60, 140 and almost 256 MiB are stored once and read, while others go on', async () => {
    const health = await healthPort()
    const worker = await system.started('worker', { ...health.env, ASKONCE_SIMULATED_LATENCY_MS: '10' })
    const sizes = { medium: 60 * mebibyte, large: 140 * mebibyte, largest: 256 * mebibyte - 4096 }
    await script(sizes)
    const before = await system.upstream.calls()
    // What these two processors do for others when nothing is outsized: more runs on them than this test.
    const idle = others('alone')
    await until(
      () => Promise.resolve(idle.count()),
      (count) => count >= 100,
      60_000,
    )
    const alone = await idle.stop()
    const beside = others('beside')
    const ids: Record<string, string> = {}
    for (const marker of Object.keys(sizes)) {
      const { body } = await submit(address, marker, { ...chat(marker), on_uncertain: 'rerun' })
      ids[marker] = body.id
      await until(
        () => state(marker),
        (now) => now === 'succeeded',
        60_000,
      )
    }
    for (const [marker, bytes] of Object.entries(sizes)) {
      expect(await length(`/v1/jobs/${ids[marker]}/response`)).toBeGreaterThanOrEqual(bytes)
      expect(await length(`/v1/jobs/${ids[marker]}`)).toBeGreaterThan(bytes)
    }
    expect(await beside.stop()).toBeLessThan(Math.max(500, 5 * alone))
    // The list of all of them says where they are.
    const list = await call(address, 'GET', '/v1/jobs?key=largest')
    expect((list.body as unknown as { data: unknown[] }).data[0]).toMatchObject({
      response: null,
      response_url: `/v1/jobs/${ids['largest']}/response`,
    })
    expect((await system.upstream.calls()) - before).toBe(3)
    worker.signal('SIGTERM')
    await worker.exited
  })

  test('what is beyond is paid once, held, and stops nobody', async () => {
    const worker = await system.started('worker')
    await script({ beyond: 257 * mebibyte })
    await submit(address, 'beyond', { ...chat('beyond'), on_uncertain: 'rerun' })
    await until(
      () => state('beyond'),
      (now) => now === 'uncertain',
      60_000,
    )
    const [job] = await system.sql<{ code: string; paid: number; billed: number }>(
      `select error->>'code' as code, paid, billed from jobs where idempotency_key = 'beyond'`,
    )
    expect(job).toEqual({ code: 'answer_not_storable', paid: 1, billed: 1 })
    expect((await submit(address, 'after', chat('after'), 30)).body.state).toBe('succeeded')
    expect((await system.upstream.callsBy())['beyond']).toBe(1)
    await worker.kill()
  })

  test('a worker that dies between the pieces and the end: the spool brings the answer, and nothing is paid again', async () => {
    const directory = `${system.directory}/pieces`
    const worker = await system.started('worker', {
      ASKONCE_DATA_DIR: directory,
      ASKONCE_TEST_PAUSE: 'worker.pieces_written',
    })
    await script({ torn: 20 * mebibyte })
    await submit(address, 'torn', { ...chat('torn'), on_uncertain: 'hold' })
    await worker.waitForLine(/paused at worker\.pieces_written/, 30_000)
    // Not stored within two seconds: it is on disk by then.
    await worker.waitForLine(/"event":"spool\.written"/, 30_000)
    await worker.kill()
    expect(await state('torn')).toBe('running')
    const next = await system.started('worker', { ASKONCE_DATA_DIR: directory })
    await until(
      () => state('torn'),
      (now) => now === 'succeeded',
      60_000,
    )
    expect((await system.upstream.callsBy())['torn']).toBe(1)
    await next.kill()
  })
})
