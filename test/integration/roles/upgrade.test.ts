import type { Child } from '@askonce/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { apiKey, call, chat, startSystem, submit, until, type Form, type System } from '../../fault/system.ts'
import { healthPort, type Health } from '../../fault/worker-health.ts'
import { makeNextVersion, type NextVersion } from '../../next-version.ts'

// What docs/operations.md says of an upgrade: the old version goes on beside the schema of the new one, which comes while it runs. Two
// programs that differ in their version and in a migration, on the same servers.

const form: Form = 'redis'
let system: System
let next: NextVersion
/** Of the old version, started before the migration. */
let old: {
  api: { child: Child; address: string }
  worker: Child
  janitor: Child
  health: Health[]
}

beforeAll(async () => {
  next = makeNextVersion(`
    alter table jobs add column next_version text not null default 'yes';
    alter table attempts add column next_version integer;
    create table next_version (id uuid primary key);`)
  system = await startSystem(form)
  const [workerPort, janitorPort] = [await healthPort(), await healthPort()]
  const [api, worker, janitor] = await Promise.all([
    system.api(),
    system.started('worker', { ...workerPort.env, ASKONCE_CONCURRENCY: '1' }),
    system.started('janitor', janitorPort.env),
  ])
  old = { api, worker, janitor, health: [workerPort, janitorPort] }
})
afterAll(async () => {
  await system.stop()
  next.remove()
})

const ready = async (address: string): Promise<unknown> => {
  const response = await fetch(`${address}/readyz`)
  return { code: response.status, ...((await response.json()) as object) }
}
const ended = async (args: string[], program?: string): Promise<{ code: number | null; out: string; err: string }> => {
  const [command = '', ...rest] = args
  const child = system.spawn(command, {}, rest, program === undefined ? {} : { program })
  const { code } = await child.exited
  return { code, out: child.stdout.join('\n'), err: child.stderr.join('\n') }
}
const newer = (): string => `The database has migration ${next.migration}, which this version does not know.`

test('the new version migrates while the old one runs, whose readiness is first asked for then', async () => {
  const before = await submit(old.api.address, 'before', chat('before'), 30)
  expect([before.status, before.body.state]).toEqual([200, 'succeeded'])
  const migrated = await ended(['migrate'], next.program)
  expect(migrated).toEqual({ code: 0, out: expect.stringContaining(`Applied: ${next.migration}`) as string, err: '' })
  expect(await ready(old.api.address)).toMatchObject({ code: 200, status: 'ready', checks: { schema: { ok: true } } })
  for (const health of old.health) expect(await health.ready()).toEqual({ status: 200, problems: [] })
})

test('both versions submit, read and call, each what the other has taken', async () => {
  const child = system.spawn('api', {}, [], { program: next.program })
  const started = await child.waitForLine(/"event":"api\.started"/, 60_000)
  const { address } = JSON.parse(started.input) as { address: string }
  const worker = system.spawn('worker', { ASKONCE_CONCURRENCY: '1' }, [], { program: next.program })
  await worker.waitForLine(/"event":"worker\.started"/, 60_000)

  await system.upstream.script([{ kind: 'answer', delayMs: 200, times: 20 }])
  const keys = Array.from({ length: 20 }, (_, index) => `both-${index}`)
  const asked = await Promise.all(
    keys.map((key, index) => submit(index % 2 === 0 ? address : old.api.address, key, chat(key), 60)),
  )
  expect(asked.map(({ status, body }) => [status, body.state])).toEqual(keys.map(() => [200, 'succeeded']))
  // Each through the other API: the stored answer.
  const again = await Promise.all(
    keys.map((key, index) => submit(index % 2 === 0 ? old.api.address : address, key, chat(key))),
  )
  expect(again.map(({ body }) => [body.id, body.replayed, body.response])).toEqual(
    asked.map(({ body }) => [body.id, true, body.response]),
  )
  const versions = await system.sql<{ version: string }>(
    `select distinct w.version from attempts a join workers w on w.id = a.worker_id where a.idempotency_key like 'both-%'`,
  )
  expect(versions).toHaveLength(2)
  expect(versions).toContainEqual({ version: next.version })
})

test('the old one comes back by itself when Postgres was away', async () => {
  await system.postgres.restart()
  await until(
    () => ready(old.api.address),
    (state) => (state as { code: number }).code === 200,
    30_000,
  )
  const after = await submit(old.api.address, 'after-restart', chat('after-restart'), 30)
  expect([after.status, after.body.state]).toEqual([200, 'succeeded'])
})

test('what starts in the old version says that it is too old, commands included; doctor says what to do', async () => {
  for (const args of [
    ['api'],
    ['worker'],
    ['janitor'],
    ['migrate'],
    ['sweep'],
    ['keys', 'list'],
    ['tenants', 'list'],
  ]) {
    expect(await ended(args), args.join(' ')).toEqual({
      code: 1,
      out: '',
      err: expect.stringContaining(newer()) as string,
    })
  }
  const doctor = await ended(['doctor', '--json'])
  const { checks } = JSON.parse(doctor.out) as {
    checks: { name: string; status: string; detail: string; todo: string }[]
  }
  expect(checks.find(({ name }) => name === 'schema')).toEqual({
    name: 'schema',
    status: 'problem',
    detail: expect.stringContaining(newer()) as string,
    todo: 'Upgrade this program. Processes of it that run go on, but cannot be started again.',
  })
  expect(await ended(['sweep'], next.program)).toMatchObject({ code: 0, err: '' })
})

test('the old ones stop as ever, and the new ones go on alone', async () => {
  const janitor = system.spawn('janitor', {}, [], { program: next.program })
  await janitor.waitForLine(/"event":"janitor\.started"/, 60_000)
  const olds = [old.api.child, old.worker, old.janitor]
  for (const child of olds) child.signal('SIGTERM')
  expect(await Promise.all(olds.map(async ({ exited }) => (await exited).code))).toEqual([0, 0, 0])
  const child = system.spawn('api', { ASKONCE_BOOTSTRAP_KEY: apiKey }, [], { program: next.program })
  const line = await child.waitForLine(/"event":"api\.started"/, 60_000)
  const { address } = JSON.parse(line.input) as { address: string }
  const alone = await submit(address, 'alone', chat('alone'), 30)
  expect([alone.status, alone.body.state]).toEqual([200, 'succeeded'])
  expect((await call(address, 'GET', `/v1/jobs/${alone.body.id}`)).body.state).toBe('succeeded')
})
