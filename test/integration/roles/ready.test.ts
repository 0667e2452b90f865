import { chownSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sessionSettings } from '@askonce/store'
import { reapAll, type Child } from '@askonce/testkit'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { chat, startSystem, submit, until, type System } from '../../fault/system.ts'
import { healthPort, type Health } from '../../fault/worker-health.ts'
import { startDropper, type Dropper } from '../store/options-dropper.ts'

interface Found {
  name: string
  status: string
  detail: string
  todo: string | null
}

// Ready means that a process can do its work: Postgres answers and takes writes. All of them say in the same words why not.
describe('what is ready where Postgres answers and takes no writes', () => {
  let system: System
  let dropper: Dropper
  beforeAll(async () => {
    system = await startSystem('redis')
    dropper = await startDropper(system.postgres.port)
    await system.sql(`create role app login password 'secret'`)
    await system.sql('grant select, insert, update, delete on all tables in schema public to app')
    await system.sql('grant usage on all sequences in schema public to app')
    for (const name of ['empty', 'empty_too']) await system.sql(`create database ${name} owner app`)
    await system.sql('grant usage on schema bullmq to app')
    await system.sql('grant select on all tables in schema bullmq to app')
  })
  afterEach(reapAll)
  afterAll(async () => {
    dropper.close()
    await system.stop()
  })

  const app = ({ port = system.postgres.port } = {}): Record<string, string> => {
    const url = new URL(system.database.url)
    Object.assign(url, { username: 'app', password: 'secret', port: String(port) })
    return { DATABASE_URL: url.href }
  }
  /** Another database of the server, in which there is something to migrate. */
  const empty = (name = 'empty'): Record<string, string> => {
    const url = new URL(app()['DATABASE_URL'] ?? '')
    url.pathname = name
    return { DATABASE_URL: url.href }
  }
  const doctor = async (env: Record<string, string> = app()): Promise<Found[]> => {
    const child = system.spawn('doctor', env, ['--json'])
    await child.exited
    return (JSON.parse(child.stdout.join('\n')) as { checks: Found[] }).checks
  }
  const events = (child: Child, name: string): { reason?: string; duration_ms?: number }[] =>
    child.stdout
      .filter((line) => line.includes(`"event":"${name}"`))
      .map((line) => JSON.parse(line) as { reason?: string; duration_ms?: number })
  const ready = async (address: string): Promise<{ status: number; reason: string | null }> => {
    const response = await fetch(`${address}/readyz`)
    const { checks } = (await response.json()) as { checks: { database: { reason: string | null } } }
    return { status: response.status, reason: checks.database.reason }
  }
  const isUp = async (address: string): Promise<string | undefined> =>
    /^askonce_database_up \d/m.exec(await (await fetch(`${address}/metrics`)).text())?.[0]
  const startAll = async () => {
    const [workerHealth, janitorHealth] = [await healthPort(), await healthPort()]
    const [{ child: api, address }] = await Promise.all([
      system.api(app()),
      system.started('worker', { ...app(), ...workerHealth.env }),
      system.started('janitor', { ...app(), ...janitorHealth.env }),
    ])
    return { api, address, healths: [workerHealth, janitorHealth] }
  }
  const untilReady = async (address: string, healths: Health[]): Promise<void> => {
    await until(
      () => ready(address),
      ({ status }) => status === 200,
      15_000,
    )
    for (const health of healths) {
      await until(
        () => health.ready(),
        ({ status }) => status === 200,
        15_000,
      )
    }
    expect((await submit(address, `ready-${Math.random()}`, chat('ready'))).status).toBe(202)
    await until(
      () => isUp(address),
      (line) => line === 'askonce_database_up 1',
      10_000,
    )
  }

  test('a standby: every process says so, migrate waits and says for what, and all go on when it is promoted', async () => {
    const { api, address, healths } = await startAll()
    await untilReady(address, healths)
    const signal = join(system.postgres.dataDirectory, 'standby.signal')
    const { uid, gid } = statSync(system.postgres.dataDirectory)
    writeFileSync(signal, '')
    chownSync(signal, uid, gid)
    await system.postgres.restart()

    const what = 'this server is a standby (in recovery): it takes no writes'
    await until(
      () => ready(address),
      ({ reason }) => reason === what,
      15_000,
    )
    expect((await ready(address)).status).toBe(503)
    for (const health of healths) {
      const { status, problems } = await until(
        () => health.ready(),
        (found) => found.problems.includes(what),
        15_000,
      )
      expect([status, problems]).toEqual([503, expect.arrayContaining([what])])
    }
    expect((await submit(address, 'refused', chat('refused'))).status).toBe(503)
    await until(
      () => isUp(address),
      (line) => line === 'askonce_database_up 0',
      10_000,
    )
    const found = (await doctor()).find(({ name }) => name === 'writes')
    expect(found).toEqual({
      name: 'writes',
      status: 'problem',
      detail: expect.stringMatching(/^this server is a standby .*; every process of ours has to write/) as string,
      todo: expect.stringContaining('select pg_promote();') as string,
    })
    // What can be read is no sign that the outage is over.
    expect(events(api, 'store.recovered')).toHaveLength(0)

    const migrating = system.spawn('migrate', empty())
    await migrating.waitForLine(/"event":"store\.unavailable".*this server is a standby \(in recovery\)/, 30_000)
    await system.sql('select pg_promote()')
    expect(await migrating.exited).toMatchObject({ code: 0 })
    expect(events(migrating, 'store.unavailable')).toHaveLength(1)
    await untilReady(address, healths)
    expect(events(api, 'store.unavailable')).toHaveLength(1)
    await api.waitForLine(/"event":"store\.recovered"/, 10_000)
  }, 120_000)

  test('a role that is read-only: said with what mends it, migrate refuses at once, and nothing has to be restarted', async () => {
    const { address, healths } = await startAll()
    await untilReady(address, healths)
    await system.sql('alter role app set default_transaction_read_only = on')
    await system.sql(`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'`)
    const what = 'sessions are read-only: default_transaction_read_only is on for the role app'
    await until(
      () => ready(address),
      ({ status, reason }) => status === 503 && reason === what,
      15_000,
    )
    const todo = 'alter role app reset default_transaction_read_only;'
    expect((await doctor()).find(({ name }) => name === 'writes')).toMatchObject({
      status: 'problem',
      detail: expect.stringContaining(what) as string,
      todo,
    })
    const migrating = system.spawn('migrate', empty('empty_too'))
    const { code } = await migrating.exited
    expect([code, migrating.stderr.join(' ')]).toEqual([1, expect.stringContaining(`${what}. ${todo}`)])
    await system.sql(todo)
    await untilReady(address, healths)
  }, 120_000)

  test('sessions without our settings: refused at the start; while running 503 with the words, and ready once the role is right', async () => {
    const env = app({ port: dropper.port })
    const refused = system.spawn('worker', env)
    expect(await refused.exited).toMatchObject({ code: 1 })
    expect(refused.stderr.join(' ')).toMatch(/lock_timeout is 0 instead of 5000.*alter role app set/)
    expect((await doctor(env)).find(({ name }) => name === 'sessions')).toMatchObject({
      status: 'problem',
      detail: expect.stringMatching(/lock_timeout is 0 instead of 5000.*in a new session/) as string,
      todo: expect.stringContaining('alter role app set lock_timeout') as string,
    })
    for (const [name, value] of Object.entries(sessionSettings))
      await system.sql(`alter role app set ${name} = '${value}'`)
    const { child, address } = await system.api(env)
    await untilReady(address, [])

    await system.sql('alter role app set synchronous_commit = off')
    dropper.cutAll()
    const what = /synchronous_commit is off instead of on.*what is acknowledged could be lost.*alter role app set/
    await until(
      () => ready(address),
      ({ status, reason }) => status === 503 && what.test(reason ?? ''),
      15_000,
    )
    expect((await submit(address, 'could-be-lost', chat('could-be-lost'))).status).toBe(503)
    await child.waitForLine(new RegExp(`"event":"request\\.failed".*${what.source}`), 5_000)
    await system.sql(`alter role app set synchronous_commit = 'on'`)
    await untilReady(address, [])
    await system.sql('alter role app reset all')
  }, 120_000)

  test('a limit of connections: the log and doctor say whose', async () => {
    const { child, address } = await system.api(app())
    await untilReady(address, [])
    await system.sql('alter role app connection limit 0')
    await system.sql(`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'`)
    const what = 'too many connections: the limit of the role is reached (53300)'
    await until(
      () => ready(address),
      ({ status, reason }) => status === 503 && reason === what,
      15_000,
    )
    expect((await submit(address, 'no-place', chat('no-place'))).status).toBe(503)
    await child.waitForLine(/"event":"request\.failed".*the limit of the role is reached/, 5_000)
    expect((await doctor()).find(({ name }) => name === 'postgres')).toMatchObject({
      status: 'problem',
      detail: expect.stringContaining(what) as string,
      todo: expect.stringContaining('alter role … connection limit') as string,
    })
    await system.sql('alter role app connection limit 20')
    await untilReady(address, [])
    expect((await doctor()).filter(({ name }) => name === 'connections')).toEqual([
      expect.objectContaining({ detail: expect.stringMatching(/^the server allows 197, \d+ in use/) as string }),
      expect.objectContaining({
        status: 'warn',
        detail: expect.stringMatching(
          /^the role app allows 20, \d+ in use: one API, worker and janitor may need 38/,
        ) as string,
      }),
    ])
    await system.sql('alter role app connection limit -1')
  }, 120_000)
})
