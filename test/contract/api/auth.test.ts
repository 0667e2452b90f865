import { ensureBootstrapKey, newApiKey } from '@askonce/api'
import { createApiKey, listApiKeys, revokeApiKey } from '@askonce/store'
import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, callApi, chat, first, startHarness, startOn, type Harness } from './harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

const list = (headers: Record<string, string>) => harness.call('GET', '/v1/jobs', { key: null, headers })

describe('keys', () => {
  it.each([
    ['none', {}, ''],
    ['another scheme', { authorization: 'Basic YTpi' }, 'invalid_request'],
    ['nothing after Bearer', { authorization: 'Bearer ' }, 'invalid_request'],
    ['two words', { authorization: 'Bearer a b' }, 'invalid_request'],
    ['an unknown key', { authorization: 'Bearer ak_unknown' }, 'invalid_token'],
    ['a very long key', { authorization: `Bearer ${'k'.repeat(5_000)}` }, 'invalid_request'],
    ['x-api-key, which is for other routes', { 'x-api-key': bootstrapKey }, ''],
  ])('401 with WWW-Authenticate: %s', async (_what, headers, error) => {
    const reply = await list(headers)
    expect([reply.status, reply.json.code, reply.headers.get('x-should-retry')]).toEqual([401, 'unauthorized', 'false'])
    expect(reply.headers.get('www-authenticate')).toMatch(/^Bearer realm="askonce"/)
    expect(reply.headers.get('www-authenticate')?.includes(error)).toBe(true)
    expect(reply.text).not.toContain('ak_unknown')
  })

  it('takes the scheme in any case', async () => {
    expect((await list({ authorization: `bearer  ${bootstrapKey}` })).status).toBe(200)
  })

  it('needs none for what describes the server', async () => {
    for (const path of ['/healthz', '/readyz', '/metrics', '/openapi.json', '/docs', '/healthz?probe=1']) {
      expect([path, (await harness.call('GET', path, { key: null })).status]).toEqual([path, 200])
    }
  })

  it('does not read the body of somebody unknown', async () => {
    const body = Buffer.alloc(40_000_000, 'x')
    const reply = await harness.call('POST', '/v1/jobs', { key: null, body }).catch(() => null)
    expect([401, undefined]).toContain(reply?.status)
  })

  it('makes keys that work, and not when they were revoked', async () => {
    const make = async () => {
      const { key, hash, hint } = newApiKey()
      const record = { tenantId: 'default', name: 'made', keyHash: hash, hint, scopes: ['read' as const] }
      return { key, hint, id: (await createApiKey(harness.database.db, record)).id }
    }
    const { key, hint } = await make()
    expect(key).toMatch(/^ak_[0-9A-Za-z]{32}$/)
    expect([key.startsWith(hint), hint.length]).toEqual([true, 8])
    expect((await harness.call('GET', '/v1/jobs', { key })).status).toBe(200)
    const revoked = await make()
    await revokeApiKey(harness.database.db, revoked.id)
    expect((await harness.call('GET', '/v1/jobs', { key: revoked.key })).status).toBe(401)
  })

  it('keeps the bootstrap key once, however often it is ensured', async () => {
    await Promise.all([1, 2, 3].map(() => ensureBootstrapKey(harness.database.db, bootstrapKey, 'again')))
    const keys = await listApiKeys(harness.database.db)
    const found = keys.filter(({ name }) => name === 'bootstrap' || name === 'again')
    expect(found).toMatchObject([
      { tenantId: 'default', scopes: ['submit', 'read', 'admin', 'operator'], hint: 'cont' },
    ])
  })
})

describe('a revoked bootstrap key', () => {
  it('stays revoked when an API starts with it again, which says so', async () => {
    const key = 'a-bootstrap-key-that-leaked'
    const api = await startOn(harness.databaseUrl, { env: { ASKONCE_BOOTSTRAP_KEY: key } })
    expect(api.api.bootstrapKeyIsRevoked()).toBe(false)
    expect((await callApi(api.api.address, 'GET', '/v1/jobs', { key })).status).toBe(200)
    await api.api.close()
    const made = (await listApiKeys(harness.database.db)).find(({ hint }) => hint === 'a-bo')
    await revokeApiKey(harness.database.db, made?.id ?? '')
    const again = await startOn(harness.databaseUrl, { env: { ASKONCE_BOOTSTRAP_KEY: key } })
    expect((await callApi(again.api.address, 'GET', '/v1/jobs', { key })).status).toBe(401)
    expect(again.api.bootstrapKeyIsRevoked()).toBe(true)
    expect(again.lines.filter(({ event }) => event === 'api.key_revoked')).toHaveLength(1)
    await again.api.close()
  })
})

describe('scopes', () => {
  it('403 without the scope of the call, which the answer names', async () => {
    const submit = await harness.keyFor('scoped', ['submit'])
    const read = await harness.keyFor('scoped', ['read'])
    const admin = await harness.keyFor('scoped', ['admin'])
    const operator = await harness.keyFor('scoped', ['operator'])
    const id = '01890000-0000-7000-8000-000000000000'
    const needs: [string, string, string, string][] = [
      ['POST', '/v1/jobs', submit, 'submit'],
      ['POST', '/v1/jobs/bulk', submit, 'submit'],
      ['POST', `/v1/jobs/${id}/cancel`, submit, 'submit'],
      ['POST', `/v1/jobs/${id}/retry`, submit, 'submit'],
      ['POST', `/v1/jobs/${id}/fail`, submit, 'submit'],
      ['POST', '/v1/jobs/bulk/cancel', submit, 'submit'],
      ['DELETE', `/v1/jobs/${id}`, submit, 'submit'],
      ['GET', '/v1/jobs', read, 'read'],
      ['GET', `/v1/jobs/${id}`, read, 'read'],
      ['GET', `/v1/jobs/${id}/response`, read, 'read'],
      ['GET', `/v1/jobs/${id}/attempts`, read, 'read'],
      ['GET', '/v1/lanes', operator, 'operator'],
      ['POST', '/v1/lanes/simulated/resume', operator, 'operator'],
    ]
    for (const [method, path, good, scope] of needs) {
      for (const key of [submit, read, admin, operator]) {
        const { status, json } = await harness.call(method, path, { key, ...(method === 'POST' ? { body: {} } : {}) })
        const refused = status === 403 && json.code === 'forbidden' && json.detail.includes(`scope ${scope}`)
        expect([method, path, refused]).toEqual([method, path, key !== good])
      }
    }
  })
})

describe('tenants', () => {
  it('one key and one body in two tenants: two jobs; each sees only its own', async () => {
    const [one, two] = [await harness.keyFor('one'), await harness.keyFor('two')]
    const send = (key: string, body = chat('same')) =>
      harness.call('POST', '/v1/jobs', { key, body, headers: { 'idempotency-key': 'same' } })
    const [mine, theirs] = [await send(one), await send(two)]
    expect([mine.status, theirs.status]).toEqual([202, 202])
    expect(mine.json.id).not.toBe(theirs.json.id)
    expect(theirs.headers.get('idempotent-replayed')).toBe('false')
    const { id } = mine.json
    const claim = await harness.claim(id)
    await harness.answer(claim, '{"secret":1}')
    const calls: [string, string][] = [
      ['GET', `/v1/jobs/${id}`],
      ['GET', `/v1/jobs/${id}?wait=1`],
      ['GET', `/v1/jobs/${id}/response`],
      ['GET', `/v1/jobs/${id}/attempts`],
      ['POST', `/v1/jobs/${id}/cancel`],
      ['POST', `/v1/jobs/${id}/retry`],
      ['POST', `/v1/jobs/${id}/fail`],
      ['DELETE', `/v1/jobs/${id}`],
    ]
    for (const [method, path] of calls) {
      const { status, json } = await harness.call(method, path, { key: two })
      expect([method, path, status, json.code]).toEqual([method, path, 404, 'not_found'])
    }
    const unknown = await harness.call('GET', '/v1/jobs/01890000-0000-7000-8000-000000000000', { key: two })
    const foreign = await harness.call('GET', `/v1/jobs/${id}`, { key: two })
    expect({ ...foreign.json, instance: '' }).toEqual({ ...unknown.json, instance: '' })
    const bulk = await harness.call('POST', '/v1/jobs/bulk/cancel', { key: two, body: { ids: [id] } })
    expect(first(bulk.json.data).status).toBe(404)
    const listed = await harness.call('GET', '/v1/jobs', { key: two })
    expect(listed.json.data.map((job) => job.id)).toEqual([theirs.json.id])
    expect((await harness.call('GET', `/v1/jobs/${id}`, { key: one })).json.state).toBe('succeeded')
  })
})
