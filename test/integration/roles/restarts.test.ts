import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { call, chat, startSystem, submit, until, type Form, type System } from '../../fault/system.ts'

// Every client object survives its server's restart, also when the server was away at boot.
describe.each<Form>(['redis', 'embedded'])('restarts of the servers (%s form)', (form) => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem(form)
    await system.postgres.kill()
    await system.redis?.kill()
    const api = system.spawn('api')
    const worker = system.spawn('worker', { ASKONCE_CONCURRENCY: '100' })
    const janitor = system.spawn('janitor')
    // All three have met a database that is away, and wait for it.
    await Promise.all([api, worker, janitor].map((child) => child.waitForLine(/store\.unavailable/, 60_000)))
    await system.postgres.restart()
    await system.redis?.restart()
    const line = await api.waitForLine(/"event":"api\.started"/, 60_000)
    address = (JSON.parse(line.input) as { address: string }).address
    await worker.waitForLine(/"event":"worker\.started"/, 60_000)
  }, 180_000)
  afterAll(() => system.stop())

  /** Runs a hundred jobs through a disturbance until all have their answer; returns those that were not called exactly once. */
  const runThrough = async (prefix: string, disturb: () => Promise<void>): Promise<[string, number][]> => {
    const jobs = Array.from({ length: 100 }, (_, index) => ({
      key: `${prefix}-${index}`,
      ...chat(`${prefix}-${index}`),
    }))
    const made = async (): Promise<[string, number][]> =>
      Object.entries(await system.upstream.callsBy()).filter(([marker]) => marker.startsWith(`${prefix}-`))
    await system.upstream.script([{ kind: 'answer', delayMs: 2_000, times: 100 }])
    expect((await call(address, 'POST', '/v1/jobs/bulk', { body: { jobs } })).status).toBe(200)
    await until(made, (calls) => calls.length > 20, 30_000)
    await disturb()
    const states = async (): Promise<string[]> => {
      const reply = await call(address, 'POST', '/v1/jobs/bulk', { body: { jobs } })
      if (reply.status !== 200) return []
      return (reply.body as unknown as { data: { job: { state: string } }[] }).data.map(({ job }) => job.state)
    }
    await until(states, (seen) => seen.length === 100 && seen.every((state) => state === 'succeeded'), 60_000)
    // New work runs as before.
    expect((await submit(address, `${prefix}-after`, chat(`${prefix}-after`), 30)).body.state).toBe('succeeded')
    return (await made()).filter(([, calls]) => calls !== 1)
  }

  test('all three find their servers when they come', async () => {
    expect((await submit(address, 'first', chat('first'), 30)).body.state).toBe('succeeded')
  })

  test('Postgres restarts while calls run: every answer is stored, none is paid twice', async () => {
    expect(await runThrough('restart', () => system.postgres.restart({ mode: 'fast' }))).toEqual([])
  }, 120_000)

  test('Postgres crashes while calls run and is away for a while: the same', async () => {
    const notOnce = await runThrough('crash', async () => {
      await system.postgres.kill()
      const refused = await submit(address, 'meanwhile', chat('meanwhile'))
      expect([refused.status, refused.body.code]).toEqual([503, 'unavailable'])
      expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
      await system.postgres.restart()
    })
    expect(notOnce).toEqual([])
  }, 120_000)

  test('what carries the queue restarts while calls run: the same', async () => {
    expect(await runThrough('queue', () => (system.redis ?? system.postgres).restart())).toEqual([])
  }, 120_000)
})
