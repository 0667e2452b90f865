import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  call,
  chat,
  ledger,
  startSystem,
  submit,
  until,
  untilState,
  type Form,
  type System,
} from '../../fault/system.ts'

interface Ready {
  status: string
  lanes: { name: string; state: string; reason: string | null }[]
}

describe.each<Form>(['redis', 'embedded'])('lanes (%s form)', (form) => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem(form)
    address = (await system.api()).address
    await Promise.all([system.started('worker'), system.started('janitor')])
  })
  afterAll(() => system.stop())

  const lane = async (name: string): Promise<{ state: string } | undefined> => {
    const { body } = await call(address, 'GET', '/v1/lanes')
    return (body as unknown as { data: { name: string; state: string }[] }).data.find((row) => row.name === name)
  }
  const refusal = (status: number, type: string, more: object = {}): object => ({
    kind: 'refuse',
    status,
    body: { error: { message: `${type} it is`, type, code: null, param: null } },
    ...more,
  })

  test('a wrong provider key stops the lane, is seen everywhere, costs no try, and resume runs the job', async () => {
    await system.upstream.script([refusal(401, 'invalid_request_error', { match: { marker: 'wrong-key' } })])
    const { body } = await submit(address, 'wrong-key', chat('wrong-key'))
    await until(
      () => lane('openai'),
      (row) => row?.state === 'stopped',
      10_000,
    )
    const read = async () => (await call(address, 'GET', `/v1/jobs/${body.id}`)).body
    const waiting = await until(read, (job) => job.error !== null, 10_000)
    expect(waiting).toMatchObject({ state: 'queued', error: { code: 'provider_auth' } })
    await until(read, (job) => (job as unknown as { waiting_for: unknown }).waiting_for !== null, 5_000)
    expect((await read()) as unknown).toMatchObject({ waiting_for: { kind: 'lane', name: 'openai', until: null } })
    const ready = (await (await fetch(`${address}/readyz`)).json()) as Ready
    expect(ready.lanes.find(({ name }) => name === 'openai')).toMatchObject({ state: 'stopped' })
    const metrics = await (await fetch(`${address}/metrics`)).text()
    expect(metrics).toMatch(/askonce_lane_state\{lane="openai",state="stopped"\} 1/)

    // Whoever else asks waits as well, and the provider hears nothing of it.
    const other = await submit(address, 'behind', chat('behind'), 1)
    expect([other.status, other.body.state]).toEqual([202, 'queued'])
    expect((await system.upstream.callsBy())['behind']).toBeUndefined()

    const resumed = await call(address, 'POST', '/v1/lanes/openai/resume')
    expect(resumed.status).toBeLessThan(300)
    await untilState(address, body.id, 'succeeded', 30_000)
    await untilState(address, other.body.id, 'succeeded', 30_000)
    expect((await ledger(system, body.id)).map(({ outcome, billing }) => [outcome, billing])).toEqual([
      ['alarmed', 'none'],
      ['answered', 'billed'],
    ])
    expect(await system.sql('select tries from jobs where id = $1', [body.id])).toEqual([{ tries: 1 }])
  })

  test('a rate limit pauses the lane for as long as the provider says, and is no try', async () => {
    await system.upstream.script([
      refusal(429, 'rate_limit_exceeded', { headers: { 'retry-after': '2' }, match: { marker: 'slow-down' } }),
    ])
    const startedAt = performance.now()
    const { body } = await submit(address, 'slow-down', chat('slow-down'), 30)
    expect(body.state).toBe('succeeded')
    expect(performance.now() - startedAt).toBeGreaterThan(2_000)
    expect((await ledger(system, body.id)).map(({ outcome }) => outcome)).toEqual(['paused', 'answered'])
    expect(await system.sql('select tries from jobs where id = $1', [body.id])).toEqual([{ tries: 1 }])
  })

  test('five overload answers in a row open the breaker; one probe after the wait closes it', async () => {
    await system.upstream.script([refusal(503, 'server_error', { times: 5 })])
    const replies = await Promise.all(
      Array.from({ length: 8 }, (_, index) => submit(address, `overload-${index}`, chat(`overload-${index}`), 60)),
    )
    expect(replies.map(({ body }) => body.state)).toEqual(Array.from({ length: 8 }, () => 'succeeded'))
    const [row] = await system.sql<{ count: string }>(
      `select count(*) from attempts where error_code = 'provider_unavailable'`,
    )
    expect(Number(row?.count)).toBe(5)
    await until(
      () => lane('openai'),
      (found) => found?.state === 'open',
      30_000,
    )
  })
})
