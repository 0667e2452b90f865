import { createApiKey, revokeApiKey, setTenant } from '@askonce/store'
import { hashKey } from '@askonce/api'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, chat, startHarness, type Harness } from './harness.ts'

let harness: Harness
beforeAll(async () => {
  harness = await startHarness({
    env: {
      ASKONCE_DEFAULT_ON_UNCERTAIN: 'fail',
      ASKONCE_DEFAULT_MAX_ATTEMPTS: '7',
      ASKONCE_DEFAULT_MAX_PAID_ATTEMPTS: '3',
    },
  })
})
afterAll(() => harness.stop())

const columns = 'on_uncertain, max_attempts, max_paid_attempts, ttl_seconds, timeout_ms'

async function rowOf(key: string): Promise<unknown> {
  const [row] = await harness.sql(`select ${columns} from jobs where idempotency_key = $1`, [key])
  return row
}

let number = 0

/** Every way in that takes one request of a caller; each returns the key that it used. */
const ways: Record<string, (apiKey: string, own: object) => Promise<string>> = {
  'POST /v1/jobs': async (key, own) => {
    const name = `native-${(number += 1)}`
    const reply = await harness.call('POST', '/v1/jobs', {
      key,
      body: { ...chat(), ...own },
      headers: { 'idempotency-key': name },
    })
    expect(reply.status).toBe(202)
    return name
  },
  'POST /v1/jobs/bulk': async (key, own) => {
    const name = `bulk-${(number += 1)}`
    const reply = await harness.call('POST', '/v1/jobs/bulk', {
      key,
      body: { jobs: [{ key: name, ...chat(), ...own }] },
    })
    expect(reply.json.data[0]?.status).toBe(202)
    return name
  },
  'an SDK route': async (key, own) => {
    const name = `sdk-${(number += 1)}`
    const headers = {
      'idempotency-key': name,
      prefer: 'respond-async',
      ...(Object.keys(own).length === 0 ? {} : { 'askonce-options': JSON.stringify(own) }),
    }
    const reply = await harness.call('POST', '/openai/v1/chat/completions', { key, body: chat().request, headers })
    expect(reply.status).toBe(202)
    return name
  },
}

describe.each(Object.entries(ways))('%s', (_, submit) => {
  it('takes what the submission says, then the tenant, then the server', async () => {
    const tenant = `own-${(number += 1)}`
    const key = await harness.keyFor(tenant)
    const byServer = {
      on_uncertain: 'fail',
      max_attempts: 7,
      max_paid_attempts: 3,
      ttl_seconds: 172_800,
      timeout_ms: 600_000,
    }
    expect(await rowOf(await submit(key, {}))).toEqual(byServer)

    const defaults = {
      onUncertain: 'hold',
      maxAttempts: 2,
      maxPaidAttempts: 1,
      ttlSeconds: 60,
      timeoutSeconds: 9,
    } as const
    await setTenant(harness.database.db, tenant, defaults)
    const byTenant = { on_uncertain: 'hold', max_attempts: 2, max_paid_attempts: 1, ttl_seconds: 60, timeout_ms: 9_000 }
    // Within a second, although the key was used a moment ago and is used all the time.
    await expect.poll(async () => rowOf(await submit(key, {})), { timeout: 1_000, interval: 20 }).toEqual(byTenant)

    const own = { on_uncertain: 'rerun', max_attempts: 4, max_paid_attempts: 4, ttl_seconds: 5, timeout_seconds: 6 }
    expect(await rowOf(await submit(key, own))).toMatchObject({
      on_uncertain: 'rerun',
      max_attempts: 4,
      ttl_seconds: 5,
    })
    expect(await rowOf(await submit(key, { on_uncertain: 'fail' }))).toEqual({ ...byTenant, on_uncertain: 'fail' })
    // Another tenant has none of it.
    expect(await rowOf(await submit(bootstrapKey, {}))).toEqual(byServer)

    await setTenant(harness.database.db, tenant, { onUncertain: null, ttlSeconds: null, timeoutSeconds: null })
    await expect
      .poll(async () => rowOf(await submit(key, {})), { timeout: 1_000, interval: 20 })
      .toEqual({ ...byServer, max_attempts: 2, max_paid_attempts: 1 })
  })
})

it('keeps an answer no longer than the server lets anybody ask for', async () => {
  const key = await harness.keyFor('long')
  await setTenant(harness.database.db, 'long', { ttlSeconds: 2_000_000_000 })
  expect(await rowOf(await (ways['POST /v1/jobs'] as (typeof ways)[string])(key, {}))).toMatchObject({
    ttl_seconds: 31_536_000,
  })
})

it('derives keys for a tenant within a second of its setting', async () => {
  const key = await harness.keyFor('deriving')
  const ask = async (): Promise<number> =>
    (
      await harness.call('POST', '/openai/v1/chat/completions', {
        key,
        body: chat().request,
        headers: { prefer: 'respond-async' },
      })
    ).status
  expect(await ask()).toBe(400)
  await setTenant(harness.database.db, 'deriving', { deriveKeys: true })
  await expect.poll(ask, { timeout: 1_000, interval: 20 }).toBe(202)
  await setTenant(harness.database.db, 'deriving', { deriveKeys: false })
  await expect.poll(ask, { timeout: 1_000, interval: 20 }).toBe(400)
})

it('refuses a key that is in use within a second of its revocation', async () => {
  const name = 'a-key-that-will-be-revoked'
  const record = { tenantId: 'default', name: 'x', keyHash: hashKey(name), hint: 'a-ke', scopes: ['read' as const] }
  const { id } = await createApiKey(harness.database.db, record)
  const ask = async (): Promise<number> => (await harness.call('GET', '/v1/jobs', { key: name })).status
  expect(await ask()).toBe(200)
  await revokeApiKey(harness.database.db, id)
  await expect.poll(ask, { timeout: 1_000, interval: 20 }).toBe(401)
})

describe('no real provider is on', () => {
  it.each([
    ['gpt-4.1', 'OPENAI_API_KEY'],
    ['claude-x', 'ANTHROPIC_API_KEY'],
  ])('%s gets a 400 that names %s, on every way in', async (model, variable) => {
    const request = { ...chat().request, model }
    const one = await harness.submit('nobody', { ...chat(), request })
    const bulk = await harness.call('POST', '/v1/jobs/bulk', {
      body: { jobs: [{ key: 'nobody', ...chat(), request }] },
    })
    const sdk = await harness.call('POST', '/openai/v1/chat/completions', {
      body: request,
      headers: { 'idempotency-key': 'nobody' },
    })
    expect([one.status, bulk.json.data[0]?.status, sdk.status]).toEqual([400, 400, 400])
    for (const text of [one.text, bulk.text, sdk.text]) expect(text).toContain(variable)
    expect(await rowOf('nobody')).toBeUndefined()
  })

  it('what the simulator once said in the name of a real model is not replayed when the provider is on', async () => {
    const request = { ...chat().request, model: 'gpt-4.1' }
    const real = await startHarness({ env: { OPENAI_BASE_URL: 'http://127.0.0.1:9/v1' } })
    try {
      const first = await real.submit('old', { ...chat(), request })
      const { id } = first.json
      // As an older server left it.
      await real.answer(await real.claim(id), '{"system_fingerprint":"simulated"}')
      await real.sql(`update jobs set lane = 'simulated' where id = $1`, [id])
      const again = await real.submit('old', { ...chat(), request })
      expect([again.status, again.json.replayed, again.json.state]).toEqual([202, false, 'queued'])
      expect(again.json.id).not.toBe(id)
      expect((await real.call('GET', `/v1/jobs/${id}`)).status).toBe(404)
      const ledger = await real.sql('select job_id from attempts where job_id = $1', [id])
      expect(ledger).toHaveLength(1)
    } finally {
      await real.stop()
    }
  })
})
