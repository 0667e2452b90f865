import { randomUUID } from 'node:crypto'
import { jobStates, type JobState } from '@askonce/core'
import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, chat, startHarness, type Harness, type Reply } from './harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

type Verb = 'retry' | 'fail' | 'cancel'
const verbs: Verb[] = ['retry', 'fail', 'cancel']
/** Where each is allowed. */
const from: Record<Verb, readonly JobState[]> = {
  retry: ['failed', 'uncertain', 'cancelled'],
  fail: ['uncertain'],
  cancel: ['queued', 'running', 'uncertain'],
}

const ask = (verb: Verb, id: string, body: object = {}, key = bootstrapKey): Promise<Reply> =>
  harness.call('POST', `/v1/jobs/${id}/${verb}`, { body, key })
const bulk = (verb: Verb, body: object, key = bootstrapKey): Promise<Reply> =>
  harness.call('POST', `/v1/jobs/bulk/${verb}`, { body, key })
const decisions = async (id: string): Promise<Reply['json']['data']> =>
  (await harness.call('GET', `/v1/jobs/${id}/decisions`)).json.data
const stateOf = async (id: string): Promise<string> => (await harness.call('GET', `/v1/jobs/${id}`)).json.state

/** A new job in this state, brought there as it would be: through claims and ends. */
async function jobIn(state: JobState, extra: object = {}): Promise<string> {
  const { id } = (await harness.submit(randomUUID(), chat('x', { on_uncertain: 'hold', ...extra }))).json
  if (state === 'queued') return id
  if (state === 'cancelled') {
    await ask('cancel', id)
    return id
  }
  const claim = await harness.claim(id)
  if (state === 'failed') await harness.end(claim, { action: 'stop', outcome: 'rejected' })
  if (state === 'succeeded') await harness.answer(claim, '{"a":1}')
  if (state === 'uncertain') await harness.end(claim, { action: 'unknown', outcome: 'unknown', billing: 'maybe' })
  return id
}

describe('a decision', () => {
  it('is listed with who, when and why, oldest first', async () => {
    const id = await jobIn('uncertain')
    const { json: before } = await harness.call('GET', `/v1/jobs/${id}/decisions`)
    expect(before).toEqual({ object: 'list', data: [], has_more: false, next_cursor: null })
    const startedAt = Date.now()
    await ask('retry', id, { accept_duplicate_charge: true, reason: 'not on the invoice' })
    await ask('cancel', id)
    const [retried, cancelled] = await decisions(id)
    expect(retried).toEqual({
      id: expect.any(Number) as number,
      at: expect.any(String) as string,
      action: 'retry',
      accept_duplicate_charge: true,
      reason: 'not on the invoice',
      by: { key_id: expect.any(String) as string, key_name: 'bootstrap' },
      from_state: 'uncertain',
      to_state: 'queued',
      attempts: 1,
      generation: 1,
      paid_attempts: 1,
    })
    expect(Math.abs(Date.parse(retried?.at ?? '') - startedAt)).toBeLessThan(60_000)
    expect(cancelled).toMatchObject({ action: 'cancel', from_state: 'queued', generation: 2, reason: null })
  })

  it('names the key that asked, also after it has been revoked', async () => {
    const key = await harness.keyFor('default')
    const id = await jobIn('queued')
    await ask('cancel', id, { reason: 'mistake' }, key)
    await harness.sql(`update api_keys set revoked_at = now() where name = 'test'`)
    const [decision] = await decisions(id)
    const [row] = await harness.sql(`select id from api_keys where name = 'test'`)
    expect(decision?.by).toEqual({ key_id: row?.['id'], key_name: 'test' })
  })

  it('outlives its job, and is shown to its own tenant only', async () => {
    const id = await jobIn('queued')
    await ask('cancel', id)
    await harness.call('DELETE', `/v1/jobs/${id}`)
    expect((await harness.call('GET', `/v1/jobs/${id}`)).status).toBe(404)
    expect(await decisions(id)).toHaveLength(1)
    const key = await harness.keyFor('others')
    for (const unknown of [id, randomUUID(), 'nonsense']) {
      const reply = await harness.call('GET', `/v1/jobs/${unknown}/decisions`, { key })
      expect([unknown, reply.status, reply.json.code]).toEqual([unknown, 404, 'not_found'])
    }
    const submitter = await harness.keyFor('default', ['submit'])
    expect((await harness.call('GET', `/v1/jobs/${id}/decisions`, { key: submitter })).status).toBe(403)
  })

  it('takes a reason of 1 to 500 characters that a database can hold', async () => {
    const id = await jobIn('queued')
    for (const reason of ['', 'x'.repeat(501), 5, null, ['x'], '\u0000', 'a\u0000b']) {
      const reply = await ask('cancel', id, { reason })
      expect([reason, reply.status, reply.json.code]).toEqual([reason, 400, 'invalid_request'])
    }
    const lone = await harness.call('POST', `/v1/jobs/${id}/cancel`, { body: '{"reason":"\\ud800"}' })
    expect([lone.status, lone.json.code]).toEqual([400, 'invalid_request'])
    expect([await stateOf(id), await decisions(id)]).toEqual(['queued', []])
    const reason = `${'é'.repeat(497)}\n😀`
    expect((await ask('cancel', id, { reason })).status).toBe(200)
    expect((await decisions(id))[0]?.reason).toBe(reason)
  })
})

describe('a decision on the wrong job', () => {
  const wrong = verbs.flatMap((verb) =>
    jobStates.filter((state) => !from[verb].includes(state)).map((state) => [verb, state] as const),
  )
  it.each(wrong)('%s of a job that is %s: 409 with that state, and nothing changes', async (verb, state) => {
    const id = await jobIn(state)
    const before = await decisions(id)
    const reply = await ask(verb, id, verb === 'retry' ? { accept_duplicate_charge: true } : {})
    expect([reply.status, reply.json.code, reply.json.state]).toEqual([409, 'state_conflict', state])
    expect([reply.json.retryable, reply.headers.get('x-should-retry')]).toEqual([false, 'false'])
    expect([await stateOf(id), await decisions(id)]).toEqual([state, before])
  })

  it.each(verbs)('%s of what is another tenant’s, expired, deleted, unknown or no id: 404, all alike', async (verb) => {
    const state = verb === 'retry' ? 'failed' : 'uncertain'
    const foreign = await jobIn(state)
    const expired = await jobIn('failed')
    await harness.sql(`update jobs set expires_at = now() where id = $1`, [expired])
    const deleted = await jobIn('failed')
    await harness.call('DELETE', `/v1/jobs/${deleted}`)
    const key = await harness.keyFor('strangers')
    const told = async (id: string): Promise<unknown> => {
      const { status, json } = await ask(verb, id, {}, id === foreign ? key : bootstrapKey)
      return [status, json.code, json.detail, json.state]
    }
    const unknown = await told('0199c0de-0000-7000-8000-000000000000')
    expect(unknown).toEqual([404, 'not_found', expect.any(String) as string, undefined])
    for (const id of [foreign, expired, deleted, randomUUID(), 'x']) expect(await told(id)).toEqual(unknown)
    expect(await stateOf(foreign)).toBe(state)
  })

  it.each(verbs)('%s of another generation than the one that was looked at: 409', async (verb) => {
    const id = await jobIn('uncertain')
    await ask('retry', id, { accept_duplicate_charge: true })
    await harness.end(await harness.claim(id), { action: 'unknown', outcome: 'unknown', billing: 'maybe' })
    const consent = verb === 'retry' ? { accept_duplicate_charge: true } : {}
    for (const generation of [1, 3]) {
      const reply = await ask(verb, id, { ...consent, generation })
      expect([reply.status, reply.json.code, reply.json.state]).toEqual([409, 'state_conflict', 'uncertain'])
      expect(reply.json.detail).toContain('generation 2')
    }
    for (const generation of [0, 1.5, '2', 2 ** 31, null]) {
      expect((await ask(verb, id, { ...consent, generation })).status).toBe(400)
    }
    expect(await decisions(id)).toHaveLength(1)
    expect((await ask(verb, id, { ...consent, generation: 2 })).status).toBe(verb === 'retry' ? 202 : 200)
  })

  it('two people who look at the same held job accept one more charge together, not two', async () => {
    const id = await jobIn('uncertain')
    const both = await Promise.all([1, 2].map(() => ask('retry', id, { accept_duplicate_charge: true, generation: 1 })))
    expect(new Set(both.map(({ status }) => status))).toEqual(new Set([202, 409]))
    expect(await decisions(id)).toHaveLength(1)
  })
})

describe('many decisions', () => {
  it.each(verbs)('%s: each item has its own outcome, and only what changed is kept', async (verb) => {
    const ids = await Promise.all(jobStates.map((state) => jobIn(state)))
    const kept = await Promise.all(ids.map((id) => decisions(id)))
    const reply = await bulk(verb, {
      ids: [...ids, 'x', randomUUID()],
      reason: 'tidying up',
      ...(verb === 'retry' ? { accept_duplicate_charge: true } : {}),
    })
    const outcomes = reply.json.data.map(({ status, error }) => [status, error?.code ?? null, error?.state ?? null])
    const good = verb === 'retry' ? 202 : 200
    const expected = jobStates.map((state) =>
      from[verb].includes(state) ? [good, null, null] : [409, 'state_conflict', state],
    )
    expect(outcomes).toEqual([...expected, [404, 'not_found', null], [404, 'not_found', null]])
    for (const [index, id] of ids.entries()) {
      const state = jobStates[index] as JobState
      const added = (await decisions(id)).slice(kept[index]?.length)
      const wanted = { action: verb, from_state: state, reason: 'tidying up' }
      expect([state, added]).toMatchObject([state, from[verb].includes(state) ? [wanted] : []])
    }
  })

  it('a retry without consent says of each job that it needs it', async () => {
    const [held, free] = [await jobIn('uncertain'), await jobIn('failed')]
    const { json } = await bulk('retry', { ids: [held, free] })
    expect(json.data.map(({ status, error }) => [status, error?.code])).toEqual([
      [400, 'consent_required'],
      [202, undefined],
    ])
    expect([await stateOf(held), await decisions(held)]).toEqual(['uncertain', []])
  })

  it('by filter, with a reason for all', async () => {
    const metadata = { run: randomUUID() }
    const ids = await Promise.all([1, 2, 3].map(() => jobIn('uncertain', { metadata })))
    const { json } = await bulk('fail', { filter: { state: 'uncertain', metadata }, reason: 'too late' })
    expect(json.data.map(({ id }) => id).toSorted()).toEqual(ids.toSorted())
    for (const id of ids) expect((await decisions(id))[0]).toMatchObject({ action: 'fail', reason: 'too late' })
  })

  it.each([{ reason: '' }, { reason: 'x'.repeat(501) }, { generation: 1 }, { why: 'x' }])(
    '%o beside ids is refused before anything is done',
    async (extra) => {
      const id = await jobIn('uncertain')
      expect((await bulk('fail', { ids: [id], ...extra })).status).toBe(400)
      expect(await stateOf(id)).toBe('uncertain')
    },
  )

  it('of another tenant finds nothing', async () => {
    const id = await jobIn('uncertain')
    const key = await harness.keyFor('outsiders')
    expect((await bulk('fail', { filter: { state: 'uncertain' } }, key)).json.data).toEqual([])
    expect((await bulk('fail', { ids: [id] }, key)).json.data).toMatchObject([{ status: 404 }])
    expect(await stateOf(id)).toBe('uncertain')
  })
})
