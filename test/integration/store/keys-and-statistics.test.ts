import { randomUUID } from 'node:crypto'
import {
  createApiKey,
  findApiKey,
  isDataError,
  listApiKeys,
  readServerFacts,
  readStatistics,
  revokeApiKey,
  type NewApiKey,
  noDefaults,
} from '@askonce/store'
import { describe, expect, it } from 'vitest'
import { addWorker, inSeconds, insertAttempt, insertJob, insertRunning, ping, sha, useStore } from './fixture.ts'

const store = useStore()

const newKey = (text: string, given: Partial<NewApiKey> = {}): NewApiKey => ({
  tenantId: 'default',
  name: 'test',
  keyHash: sha(text),
  hint: text.slice(0, 4),
  scopes: ['submit', 'read'],
  ...given,
})

describe('api keys', () => {
  it('are found by their SHA-256, with tenant and scopes; the tenant is made when it is new', async () => {
    const created = await createApiKey(store.db, newKey('one', { tenantId: 'team-a', scopes: ['admin'] }))
    expect(created).toMatchObject({ tenantId: 'team-a', name: 'test', hint: 'one', scopes: ['admin'], revokedAt: null })
    expect(await findApiKey(store.db, sha('one'))).toEqual({
      ...created,
      deriveKeys: false,
      defaults: noDefaults,
      limits: { maxQueued: null, submissionsPerSecond: null, budgetDayUsd: null, budgetMonthUsd: null },
    })
    expect(await findApiKey(store.db, sha('two'))).toBeNull()
    expect(await store.query(`select id from tenants where id = 'team-a'`)).toEqual([{ id: 'team-a' }])
  })

  it('are created once: the key stays as it is', async () => {
    const first = await createApiKey(store.db, newKey('twice'))
    const again = await createApiKey(store.db, newKey('twice', { name: 'other', scopes: ['admin'], tenantId: 'other' }))
    expect(again).toEqual(first)
    const both = await Promise.all([1, 2, 3, 4].map(() => createApiKey(store.db, newKey('herd', { tenantId: 'herd' }))))
    expect(new Set(both.map(({ id }) => id)).size).toBe(1)
  })

  it('are not found when revoked, and stay so when they are created again', async () => {
    const { id } = await createApiKey(store.db, newKey('revoked'))
    const revoked = await revokeApiKey(store.db, id)
    expect(revoked?.revokedAt).toBeInstanceOf(Date)
    expect(await findApiKey(store.db, sha('revoked'))).toBeNull()
    expect((await revokeApiKey(store.db, id))?.revokedAt).toEqual(revoked?.revokedAt)
    expect(await revokeApiKey(store.db, randomUUID())).toBeNull()
    expect(await createApiKey(store.db, newKey('revoked'))).toMatchObject({ id, revokedAt: revoked?.revokedAt })
    expect(await findApiKey(store.db, sha('revoked'))).toBeNull()
  })

  it('are listed newest first, revoked ones too', async () => {
    const { id } = await createApiKey(store.db, newKey('newest'))
    await revokeApiKey(store.db, id)
    const keys = await listApiKeys(store.db)
    expect(keys[0]).toMatchObject({ id, revokedAt: expect.any(Date) as Date })
    const times = keys.map(({ createdAt }) => createdAt.getTime())
    expect(times).toEqual(times.toSorted((a, b) => b - a))
  })

  it.each<[string, Partial<NewApiKey>]>([
    ['an unknown scope', { scopes: ['root' as 'admin'] }],
    ['no scope', { scopes: [] }],
    ['a tenant in capitals', { tenantId: 'Team' }],
    ['a tenant without a name', { tenantId: '' }],
    ['a tenant of 64 characters', { tenantId: 't'.repeat(64) }],
    ['no name', { name: '' }],
    ['a hash that is none', { keyHash: Buffer.from('short') }],
  ])('with %s are refused, and no tenant is left behind', async (_, wrong) => {
    const error: unknown = await createApiKey(store.db, newKey('bad', { tenantId: 'left-behind', ...wrong })).catch(
      (e: unknown) => e,
    )
    expect(isDataError(error)).toBe(true)
    expect(await store.query(`select id from tenants where id = 'left-behind'`)).toEqual([])
  })

  it('go with tenants of 63 characters', async () => {
    const tenantId = `a${'_-9'.repeat(20)}zz`
    expect(await createApiKey(store.db, newKey('long', { tenantId }))).toMatchObject({ tenantId })
  })
})

describe('readStatistics', () => {
  it('is all zero for an empty database', async () => {
    expect(await readStatistics(store.db)).toEqual({
      jobs: { queued: 0, running: 0, succeeded: 0, failed: 0, uncertain: 0, cancelled: 0 },
      oldestQueuedSeconds: 0,
      oldestUncertainSeconds: 0,
      workersAlive: 0,
      openAttempts: 0,
    })
  })

  it('counts jobs by state, ages, workers and open attempts', async () => {
    await insertJob(store, { run_at: inSeconds(1_000) })
    expect((await readStatistics(store.db)).oldestQueuedSeconds).toBe(0)
    await insertJob(store, { run_at: inSeconds(-100) })
    await insertJob(store, { run_at: inSeconds(-200) })
    await insertRunning(store)
    for (const state of ['failed', 'failed', 'cancelled'] as const) await insertJob(store, { state })
    for (const ago of [50, 300]) await insertJob(store, { state: 'uncertain', uncertain_since: inSeconds(-ago) })
    for (let count = 0; count < 5; count += 1) await insertJob(store, { state: 'succeeded' })
    await addWorker(store)
    await insertAttempt(store, randomUUID())
    await insertAttempt(store, randomUUID(), { billing: 'none' })
    await store.query('analyze jobs')
    const statistics = await readStatistics(store.db)
    expect(statistics).toMatchObject({
      jobs: { queued: 3, running: 1, succeeded: 5, failed: 2, uncertain: 2, cancelled: 1 },
      workersAlive: 1,
      openAttempts: 2,
    })
    expect(Math.abs(statistics.oldestQueuedSeconds - 200)).toBeLessThan(30)
    expect(Math.abs(statistics.oldestUncertainSeconds - 300)).toBeLessThan(30)
  })
})

describe('the server', () => {
  it('tells what doctor asks', async () => {
    await ping(store.db)
    const facts = await readServerFacts(store.db)
    expect(facts).toMatchObject({ synchronousCommit: 'on', fsync: 'off', now: expect.any(Date) as Date })
    expect(Math.floor(facts.versionNumber / 10_000)).toBe(store.server.major)
    expect(facts.maxConnections).toBeGreaterThan(0)
    expect(facts.version).toContain(String(store.server.major))
  })
})
