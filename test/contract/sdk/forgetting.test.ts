import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { forgetCopies } from '@askonce/store'
import { batchOf, chatLine, lines, results, startBatchSystem, until, type BatchSystem } from './batch-system.ts'

let system: BatchSystem

beforeAll(async () => {
  system = await startBatchSystem()
})
afterAll(() => system.stop())

async function call(method: string, path: string, body?: object): Promise<{ status: number; json: never }> {
  const response = await fetch(system.api.address + path, {
    method,
    headers: { authorization: `Bearer ${system.key}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  return { status: response.status, json: (await response.json()) as never }
}

const idOf = async (key: string): Promise<string> =>
  (await system.sql<{ id: string }>('select id from jobs where idempotency_key = $1', [key]))[0]?.id ?? ''

describe('a job that is forgotten', () => {
  it('is gone from the results of batches: its line says so, every other line and the size are as they were', async () => {
    const prefix = 'customer-17'
    const batch = await until(system, (await batchOf(system, lines(4), { idempotency_prefix: prefix })).id, [
      'completed',
    ])
    const before = await results(system, batch.output_file_id)
    const bytes = (await system.openai.files.retrieve(batch.output_file_id ?? '')).bytes
    const id = await idOf(`${prefix}/line-2`)
    expect((await call('DELETE', `/v1/jobs/${id}`)).status).toBe(200)
    const after = await results(system, batch.output_file_id)
    expect((await system.openai.files.retrieve(batch.output_file_id ?? '')).bytes).toBe(bytes)
    expect(after.map(({ custom_id: custom }) => custom)).toEqual(before.map(({ custom_id: custom }) => custom))
    for (const [index, line] of after.entries()) {
      const gone = {
        custom_id: 'line-2',
        response: null,
        error: { code: 'forgotten', message: 'The answer was deleted.' },
      }
      expect(line).toEqual(line.custom_id === 'line-2' ? gone : before[index])
    }
    const page = await call('GET', `/openai/v1/batches/${batch.id}/lines`)
    expect(JSON.stringify(page.json)).toContain('forgotten')
    // Once more changes nothing, as the janitor does it.
    await forgetCopies(system.db, [id])
    expect(await results(system, batch.output_file_id)).toEqual(after)
  })

  it('is not asked again for a batch that still waits for it, and ends its line', async () => {
    const prefix = 'waiting'
    system.upstream.script([{ kind: 'hang', match: { marker: 'never' } }])
    const created = await batchOf(system, `${chatLine('now')}\n${chatLine('never')}\n`, { idempotency_prefix: prefix })
    await system.upstream.waitForCalls(system.upstream.calls() + 1, 10_000).catch(() => undefined)
    const calls = (): number => system.upstream.callsBy().get('never') ?? 0
    while (calls() === 0) await new Promise((resolve) => setTimeout(resolve, 20))
    const id = await idOf(`${prefix}/never`)
    // The driver must not see it cancelled before it is gone: both in one commit, as a deletion right behind a cancel looks to it.
    await system.sql(
      `with gone as (delete from jobs where id = $1 returning id) insert into forgotten_jobs (job_id) select id from gone`,
      [id],
    )
    const batch = await until(system, created.id, ['completed'], 60_000)
    expect(batch.request_counts).toEqual({ total: 2, completed: 1, failed: 1 })
    expect(await results(system, batch.error_file_id)).toMatchObject([
      { custom_id: 'never', error: { code: 'forgotten' } },
    ])
    expect(calls()).toBe(1)
  })

  it('many by prefix: a rehearsal counts, then they are gone, and so are keys in the ledger', async () => {
    const prefix = 'customer-18'
    await until(system, (await batchOf(system, lines(3), { idempotency_prefix: prefix })).id, ['completed'])
    const filter = { key_prefix: `${prefix}/` }
    const dry = await call('POST', '/v1/jobs/bulk/delete', { filter, dry_run: true })
    const of = (deleted: boolean) => Array.from({ length: 3 }, () => ({ status: 200, job: { deleted } }))
    expect(dry.json).toMatchObject({ data: of(false), has_more: false })
    expect((await call('GET', `/v1/jobs?key_prefix=${prefix}/`)).json).toMatchObject({ data: [{}, {}, {}] })
    expect((await call('POST', '/v1/jobs/bulk/delete', { filter })).json).toMatchObject({ data: of(true) })
    expect((await call('GET', `/v1/jobs?key_prefix=${prefix}/`)).json).toMatchObject({ data: [] })
    const one = { filter: { key: `${prefix}/line-1` } }
    expect((await call('POST', '/v1/attempts/erase', one)).json).toMatchObject({ erased: 1, has_more: false })
    expect((await call('POST', '/v1/attempts/erase', { filter })).json).toMatchObject({ erased: 2, has_more: false })
    expect((await call('GET', `/v1/attempts?key=${prefix}/line-1`)).json).toMatchObject({ data: [] })
  })
})
