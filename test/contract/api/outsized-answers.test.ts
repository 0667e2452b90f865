import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { writeAnswerPieces } from '@askonce/store'
import { leakCheck } from '@askonce/testkit'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, chat, startHarness, type Harness } from './harness.ts'

const mebibyte = 1024 * 1024

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

/** The most that buffers of this process, the API's among them, have held while `work` ran, beyond what they held before. */
async function mostHeld(work: () => Promise<void>): Promise<number> {
  const before = process.memoryUsage().arrayBuffers
  let most = 0
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage().arrayBuffers - before)
  }, 5)
  await work().finally(() => clearInterval(timer))
  return most
}

// DESIGN.md §1: nobody waits because of somebody else, and an API has a gibibyte for everybody.
describe('answers that are large together', { timeout: 120_000 }, () => {
  const items = Array.from({ length: 200 }, (_, index) => ({ key: `large-${index}`, ...chat(`large-${index}`) }))
  const answerBytes = 900_000

  it('are replayed to a bulk one after the other', async () => {
    const body = { jobs: items }
    expect((await harness.call('POST', '/v1/jobs/bulk', { body })).json.data).toHaveLength(items.length)
    await harness.sql(`
      with done as (
        update jobs set
          state = 'succeeded', attempt = 1, answer_attempt = 1, paid = 1, billed = 1, response_status = 200,
          started_at = now(), completed_at = now(), expires_at = now() + interval '1 hour'
        where idempotency_key like 'large-%' returning id, tenant_id
      )
      insert into answers (job_id, tenant_id, attempt, response, response_content_type, findable)
      select id, tenant_id, 1, convert_to('"' || repeat('x', ${answerBytes}) || '"', 'UTF8'), 'application/json', false from done
    `)
    let bytes = 0
    const held = await mostHeld(async () => {
      const response = await fetch(`${harness.api.address}/v1/jobs/bulk`, {
        method: 'POST',
        headers: { authorization: `Bearer ${bootstrapKey}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
      for await (const chunk of response.body as AsyncIterable<Uint8Array>) bytes += chunk.length
    })
    expect(bytes).toBeGreaterThan(items.length * answerBytes)
    expect(held).toBeLessThan(128 * mebibyte)
  })
})

describe('HEAD', () => {
  const streamed = async (key: string): Promise<string> => {
    const headers = { 'idempotency-key': key, prefer: 'respond-async' }
    const body = { ...chat(key).request, stream: true }
    return (await harness.call('POST', '/openai/v1/chat/completions', { headers, body })).json.id
  }

  it('says what there is and follows nothing', async () => {
    const id = await streamed('followed')
    const response = await fetch(`${harness.api.address}/v1/jobs/${id}/events`, {
      method: 'HEAD',
      headers: { authorization: `Bearer ${bootstrapKey}` },
      signal: AbortSignal.timeout(5_000),
    })
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'text/event-stream; charset=utf-8'])
  })

  it('reads no piece of a large answer', async () => {
    const id = await streamed('pieces')
    const claim = await harness.claim(id)
    const pieces = randomUUID()
    const answer = Buffer.alloc(3 * mebibyte, 'x')
    await writeAnswerPieces(harness.database.db, pieces, { jobId: id, attempt: claim.attempt }, answer)
    await harness.sql(
      `with done as (
         update jobs set
           state = 'succeeded', answer_attempt = 1, response_status = 200, completed_at = now(), expires_at = now() + interval '1 hour'
         where id = $1 returning id, tenant_id
       )
       insert into answers (job_id, tenant_id, attempt, response_pieces, response_bytes, response_content_type, findable)
       select id, tenant_id, 1, $2::uuid, $3::integer, 'text/plain', false from done`,
      [id, pieces, answer.length],
    )
    const waiting = async (): Promise<number> => {
      const [row] = await harness.sql(
        `select count(*)::int as n from pg_locks where not granted and relation = 'answer_pieces'::regclass`,
      )
      return Number(row?.['n'])
    }
    const client = new pg.Client({ connectionString: harness.adminUrl })
    await client.connect()
    await client.query('begin; lock table answer_pieces')
    const head = await harness.call('HEAD', `/v1/jobs/${id}/response`)
    expect([head.status, head.headers.get('content-length')]).toEqual([200, String(answer.length)])
    const get = harness.call('GET', `/v1/jobs/${id}/response`)
    // Whatever HEAD would read has been asked for before.
    while ((await waiting()) === 0) await sleep(20)
    expect(await waiting()).toBe(1)
    await client.end()
    expect((await get).text).toHaveLength(answer.length)
  })
})
