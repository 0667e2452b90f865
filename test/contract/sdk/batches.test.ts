import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { batchOf, chatLine, lines, results, startBatchSystem, until, upload, type BatchSystem } from './batch-system.ts'

interface LinesPage {
  data: { custom_id: string; outcome: string; result: object }[]
  next_after: string
}

let system: BatchSystem

beforeAll(async () => {
  system = await startBatchSystem()
})
afterAll(() => system.stop())

const states = (rows: { custom_id: string; error: { code: string } | null }[]) =>
  Object.fromEntries(rows.map(({ custom_id: id, error }) => [id, error?.code ?? 'ok']))

describe('a batch of the OpenAI SDK', () => {
  it('goes from its file to its results, and a second upload of the file pays for nothing', async () => {
    const content = lines(30)
    const before = system.upstream.calls()
    const created = await batchOf(system, content, { team: 'red' })
    expect(created).toMatchObject({
      object: 'batch',
      endpoint: '/v1/chat/completions',
      status: 'validating',
      output_file_id: null,
      metadata: { team: 'red' },
    })
    expect(created.id).toMatch(/^batch_[0-9a-f]{32}$/)
    const batch = await until(system, created.id, ['completed'])
    expect(batch.request_counts).toEqual({ total: 30, completed: 30, failed: 0 })
    expect(batch.askonce).toMatchObject({ replayed: 0 })
    expect(batch.completed_at).toBeGreaterThanOrEqual(batch.created_at)
    expect(batch.error_file_id).toBeNull()
    const output = await results(system, batch.output_file_id)
    expect(new Set(output.map((line) => line.custom_id)).size).toBe(30)
    expect(output[0]).toMatchObject({
      response: { status_code: 200, body: { object: 'chat.completion' } },
      error: null,
    })
    expect(system.upstream.calls() - before).toBe(30)

    const again = await until(system, (await batchOf(system, content)).id, ['completed'])
    expect(again.askonce).toMatchObject({ replayed: 30, cost_usd: 0 })
    expect(await results(system, again.output_file_id)).toHaveLength(30)
    expect(system.upstream.calls() - before).toBe(30)
  })

  it.each([
    ['/v1/responses', 'response', 'output'],
    ['/v1/embeddings', 'list', 'data'],
  ] as const)('of %s runs to its end, and its results are read', async (url, object, member) => {
    const count = 12
    const line = (index: number) => ({
      custom_id: `line-${index}`,
      method: 'POST',
      url,
      body: { model: 'gpt-test', input: `question ${index}`, user: `line-${index}` },
    })
    const content = Array.from({ length: count }, (_, index) => `${JSON.stringify(line(index))}\n`).join('')
    const before = system.upstream.calls()
    const created = await batchOf(system, content, null, url)
    expect(created).toMatchObject({ endpoint: url, status: 'validating' })
    const batch = await until(system, created.id, ['completed', 'failed'])
    expect(batch.request_counts).toEqual({ total: count, completed: count, failed: 0 })
    expect(batch.error_file_id).toBeNull()
    const output = await results(system, batch.output_file_id)
    expect(new Set(output.map(({ custom_id: id }) => id)).size).toBe(count)
    for (const { response } of output) {
      expect(response).toMatchObject({ status_code: 200, body: { object, model: 'gpt-test' } })
      expect(response?.body[member]).toHaveLength(1)
    }
    expect(system.upstream.calls() - before).toBe(count)
    const again = await until(system, (await batchOf(system, content, null, url)).id, ['completed'])
    expect(again.askonce).toMatchObject({ replayed: count, cost_usd: 0 })
    const contents = (rows: typeof output) => new Map(rows.map((row) => [row.custom_id, row.response?.body]))
    expect(contents(await results(system, again.output_file_id))).toEqual(contents(output))
    expect(system.upstream.calls() - before).toBe(count)
  })

  it('shares its keys with everybody: a prefix of one’s own, and only missing lines run', async () => {
    const metadata = { idempotency_prefix: 'mine' }
    await until(system, (await batchOf(system, lines(5, 'own'), metadata)).id, ['completed'])
    const [job] = await system.sql('select state from jobs where idempotency_key = $1', ['mine/own-3'])
    expect(job).toEqual({ state: 'succeeded' })
    const before = system.upstream.calls()
    const changed = `${lines(7, 'own')}${chatLine('own-7')}\n`.replace('"hello"}],"user":"own-0"', '"other"}]')
    const other = changed.replace(chatLine('own-1'), chatLine('own-1', { content: 'another question' }))
    const batch = await until(system, (await batchOf(system, other, metadata)).id, ['completed'])
    expect(batch.request_counts).toEqual({ total: 8, completed: 7, failed: 1 })
    expect(batch.askonce.replayed).toBe(4)
    expect(states(await results(system, batch.error_file_id))).toEqual({ 'own-1': 'idempotency_key_reused' })
    expect(system.upstream.calls() - before).toBe(3)
  })

  it('shows results while it runs, in the order in which they come', async () => {
    const held = system.upstream.hold({ marker: 'run-4' })
    const { id } = await batchOf(system, lines(5, 'run'))
    const page = (after: string, limit = 3): Promise<LinesPage> =>
      system.openai.get(`/batches/${id}/lines`, { query: { after, limit } })
    await expect
      .poll(async () => (await system.openai.batches.retrieve(id)).request_counts?.completed, { timeout: 15_000 })
      .toBe(4)
    expect(await system.openai.batches.retrieve(id)).toMatchObject({ status: 'in_progress', output_file_id: null })
    const first = await page('0')
    const second = await page(first.next_after)
    expect([...first.data, ...second.data].map((line) => line.custom_id).toSorted()).toEqual([
      'run-0',
      'run-1',
      'run-2',
      'run-3',
    ])
    expect(first.data[0]).toMatchObject({ outcome: 'succeeded', result: { response: { status_code: 200 } } })
    held.release()
    await until(system, id, ['completed'])
    expect((await page(second.next_after)).data.map((line) => line.custom_id)).toEqual(['run-4'])
  })

  it('puts refusals of the provider into the error file, in its own words', async () => {
    const refusal = { error: { message: 'no such thing', type: 'invalid_request_error', param: null, code: 'bad' } }
    system.upstream.script([{ kind: 'refuse', status: 400, body: refusal, match: { marker: 'fail-1' } }])
    const batch = await until(system, (await batchOf(system, lines(3, 'fail'))).id, ['completed'])
    expect(batch.request_counts).toEqual({ total: 3, completed: 2, failed: 1 })
    const errors = await results(system, batch.error_file_id)
    expect(errors).toHaveLength(1)
    expect(errors[0]).toMatchObject({ custom_id: 'fail-1', response: { status_code: 400, body: refusal }, error: null })
  })

  it('pages through files and batches as the SDK does, and keeps tenants apart', async () => {
    const other = await system.tenant('pages')
    const ids: string[] = []
    for (const index of [0, 1, 2, 3, 4]) ids.push((await batchOf(other, `${chatLine(`page-${index}`)}\n`)).id)
    const listed: string[] = []
    for await (const batch of other.openai.batches.list({ limit: 2 })) listed.push(batch.id)
    expect(listed).toEqual(ids.toReversed())
    for (const id of ids) await until(other, id, ['completed'])
    const files: string[] = []
    for await (const file of other.openai.files.list({ limit: 2, purpose: 'batch' })) files.push(file.id)
    expect(files).toHaveLength(5)
    expect(new Set(files).size).toBe(5)
    await expect(system.openai.batches.retrieve(ids[0] ?? '')).rejects.toBeInstanceOf(OpenAI.NotFoundError)
    await expect(system.openai.files.retrieve(files[0] ?? '')).rejects.toBeInstanceOf(OpenAI.NotFoundError)
    await expect(
      system.openai.batches.create({
        input_file_id: files[0] ?? '',
        endpoint: '/v1/chat/completions',
        completion_window: '24h',
      }),
    ).rejects.toBeInstanceOf(OpenAI.NotFoundError)
  })
})

describe('the end of a batch', () => {
  it('cancel keeps what is done, waits for what runs, and cancels what nobody else wants', async () => {
    const held = system.upstream.hold({ model: 'gpt-held' })
    const content = Array.from(
      { length: 40 },
      (_, index) => `${chatLine(`stop-${index}`, { body: index < 2 ? {} : { model: 'gpt-held' } })}\n`,
    ).join('')
    const { id } = await batchOf(system, content, { idempotency_prefix: 'stop' })
    await system.upstream.waitForCalls(system.upstream.calls(), 1)
    await expect.poll(() => system.upstream.inFlight(), { timeout: 15_000 }).toBe(10)
    // Somebody else wants one of those that are queued.
    const [queued] = await system.sql<{ id: string; idempotency_key: string; request: Buffer }>(
      `select id, idempotency_key, request from jobs j join requests r on r.job_id = j.id where idempotency_key like 'stop/%' and state = 'queued' order by idempotency_key limit 1`,
    )
    const wanted = system.openai.chat.completions.create(JSON.parse(String(queued?.request)) as never, {
      headers: { 'Idempotency-Key': queued?.idempotency_key ?? '' },
    })
    const answered = wanted.then(() => true)
    await expect
      .poll(() => system.sql('select owner_batch from jobs where id = $1', [queued?.id]), { timeout: 10_000 })
      .toEqual([{ owner_batch: null }])

    expect((await system.openai.batches.cancel(id)).status).toBe('cancelling')
    await expect
      .poll(
        () =>
          system.sql(`select count(*)::int as n from jobs where idempotency_key like 'stop/%' and state = 'cancelled'`),
        {
          timeout: 10_000,
        },
      )
      .toEqual([{ n: 27 }])
    expect((await system.openai.batches.retrieve(id)).status).toBe('cancelling')
    held.release()
    const batch = await until(system, id, ['cancelled'])
    expect(batch.request_counts).toEqual({ total: 40, completed: 12, failed: 28 })
    expect(await results(system, batch.output_file_id)).toHaveLength(12)
    const errors = states(await results(system, batch.error_file_id))
    expect(new Set(Object.values(errors))).toEqual(new Set(['batch_cancelled']))
    expect(await answered).toBe(true)

    // What the cancel has cancelled runs when somebody asks for it again; the rest is replayed.
    const again = await until(system, (await batchOf(system, content, { idempotency_prefix: 'stop' })).id, [
      'completed',
    ])
    expect(again.request_counts).toEqual({ total: 40, completed: 40, failed: 0 })
    expect(again.askonce.replayed).toBe(13)
  })

  it('the end of the window makes the rest batch_expired; a call under way goes on as a job of its key', async () => {
    const held = system.upstream.hold({ model: 'gpt-late' })
    const content = Array.from(
      { length: 20 },
      (_, index) => `${chatLine(`late-${index}`, { body: { model: 'gpt-late' } })}\n`,
    ).join('')
    const { id } = await batchOf(system, content, { idempotency_prefix: 'late' })
    await expect.poll(() => system.upstream.inFlight(), { timeout: 15_000 }).toBe(10)
    await system.sql(`update batches set expires_at = now() where status = 'in_progress'`)
    const batch = await until(system, id, ['expired'])
    expect(batch.request_counts).toEqual({ total: 20, completed: 0, failed: 20 })
    expect(batch.output_file_id).toBeNull()
    const errors = states(await results(system, batch.error_file_id))
    expect(Object.keys(errors)).toHaveLength(20)
    expect(new Set(Object.values(errors))).toEqual(new Set(['batch_expired']))
    const rows = () =>
      system.sql(
        `select state, count(*)::int as n, count(owner_batch)::int as owned from jobs where idempotency_key like 'late/%' group by state order by state`,
      )
    expect(await rows()).toEqual([
      { state: 'cancelled', n: 10, owned: 10 },
      { state: 'running', n: 10, owned: 0 },
    ])
    held.release()
    await expect.poll(rows, { timeout: 10_000 }).toEqual([
      { state: 'cancelled', n: 10, owned: 10 },
      { state: 'succeeded', n: 10, owned: 0 },
    ])
  })

  it('a job that is deleted before its result is read is asked for again', async () => {
    const held = system.upstream.hold({ marker: 'gone-1' })
    const { id } = await batchOf(system, lines(2, 'gone'), { idempotency_prefix: 'gone' })
    await expect.poll(() => system.upstream.inFlight(), { timeout: 15_000 }).toBe(1)
    await system.sql(`delete from jobs where idempotency_key = 'gone/gone-1'`)
    held.release()
    const batch = await until(system, id, ['completed'])
    expect(batch.request_counts?.completed).toBe(2)
  })

  it('a batch that has ended cannot be cancelled', async () => {
    const { id } = await until(system, (await batchOf(system, lines(1, 'over'))).id, ['completed'])
    await expect(system.openai.batches.cancel(id)).rejects.toBeInstanceOf(OpenAI.ConflictError)
  })
})

describe('a file that is no good', () => {
  const cases: [name: string, content: string | Buffer, faults: { code: string; line: number | null }[]][] = [
    ['is empty', '\n\r\n', [{ code: 'empty_file', line: null }]],
    ['is no JSON', `${chatLine('a')}\n{"custom_id":`, [{ code: 'invalid_json_line', line: 2 }]],
    [
      'is no UTF-8',
      Buffer.concat([Buffer.from(`${chatLine('a')}\n\n`), Buffer.from([0xff, 0xfe, 0x0a])]),
      [{ code: 'invalid_json_line', line: 3 }],
    ],
    [
      'has a custom_id twice',
      `${chatLine('a')}\n${chatLine('b')}\n${chatLine('a')}\n`,
      [{ code: 'duplicate_custom_id', line: 3 }],
    ],
    [
      'lacks a custom_id',
      '{"method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"x"}]}}',
      [{ code: 'missing_custom_id', line: 1 }],
    ],
    [
      'is for another endpoint',
      chatLine('a').replace('/v1/chat/completions', '/v1/responses'),
      [{ code: 'url_mismatch', line: 1 }],
    ],
    ['asks for a stream', chatLine('a', { body: { stream: true } }), [{ code: 'invalid_request', line: 1 }]],
    [
      'has a request that cannot be one',
      chatLine('a', { body: { messages: [] } }),
      [{ code: 'invalid_request', line: 1 }],
    ],
    [
      'has several faults',
      `${chatLine('a')}\nno\n${chatLine('a')}\n${chatLine('')}\n`,
      [
        { code: 'invalid_json_line', line: 2 },
        { code: 'duplicate_custom_id', line: 3 },
        { code: 'missing_custom_id', line: 4 },
      ],
    ],
  ]

  it.each(cases)('%s', async (_, content, faults) => {
    const before = system.upstream.calls()
    const batch = await until(system, (await batchOf(system, content)).id, ['failed', 'completed'])
    expect(batch.status).toBe('failed')
    expect(batch.errors?.data?.map(({ code, line }) => ({ code, line }))).toEqual(faults)
    expect(batch.failed_at).toBeTypeOf('number')
    expect(system.upstream.calls()).toBe(before)
    expect(await system.sql(`select count(*)::int as n from files where status = 'writing'`)).toEqual([{ n: 0 }])
  })

  it('names the member that is wrong, and tells a hundred faults at most', async () => {
    const bad = chatLine('x', { body: { model: 7 } })
    const content = Array.from({ length: 130 }, (_, index) => bad.replace('"x"', `"x-${index}"`)).join('\n')
    const batch = await until(system, (await batchOf(system, content)).id, ['failed'])
    expect(batch.errors?.data).toHaveLength(100)
    expect(batch.errors?.data?.[0]).toMatchObject({ code: 'invalid_request', param: '/body/model', line: 1 })
  })

  it('accepts a byte order mark, CRLF, empty lines, a line of a megabyte and no end of line', async () => {
    const big = chatLine('big', { content: 'x'.repeat(1_200_000) })
    const content = `\uFEFF${chatLine('first')}\r\n\r\n   \n${big}\r\n${chatLine('last')}`
    const batch = await until(system, (await batchOf(system, content)).id, ['completed', 'failed'])
    expect(batch.errors).toBeNull()
    expect(batch.request_counts).toEqual({ total: 3, completed: 3, failed: 0 })
  })

  it('is gone before it was read', async () => {
    // As if it had been deleted between the creation and the validation.
    const [row] = await system.sql<{ id: string }>(`
      insert into batches (
        id, tenant_id, kind, operation, endpoint, api_key_id, input_file_id, output_file_id, error_file_id, key_prefix,
        completion_window, window_seconds, status, expires_at
      )
      select gen_random_uuid(), 'default', 'openai', 'chat.completions', '/v1/chat/completions', id, gen_random_uuid(),
        gen_random_uuid(), gen_random_uuid(), 'x', '24h', 86400, 'validating', now() + interval '1 day'
      from api_keys where tenant_id = 'default'
      returning id`)
    const batch = await until(system, `batch_${row?.id.replaceAll('-', '')}`, ['failed', 'completed'])
    expect(batch.errors?.data?.map(({ code }) => code)).toEqual(['file_not_found'])
  })

  it('is refused before there is a batch: unknown file, endpoint, window, prefix', async () => {
    const file = await upload(system, lines(1, 'refused'))
    const create = (given: object) =>
      system.openai.batches.create({
        input_file_id: file,
        endpoint: '/v1/chat/completions',
        completion_window: '24h',
        ...given,
      })
    await expect(create({ input_file_id: 'file-00000000000000000000000000000000' })).rejects.toBeInstanceOf(
      OpenAI.NotFoundError,
    )
    await expect(create({ endpoint: '/v1/other' })).rejects.toMatchObject({ status: 400, param: '/endpoint' })
    await expect(create({ completion_window: 'soon' })).rejects.toMatchObject({ status: 400 })
    await expect(create({ metadata: { idempotency_prefix: 'ä' } })).rejects.toMatchObject({
      status: 400,
      param: '/metadata/idempotency_prefix',
    })
  })
})
