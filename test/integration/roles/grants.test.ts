import { join } from 'node:path'
import { startTestRedis, type Child, type TestRedis } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { call, chat, startSystem, submit, until, type Form, type JobView, type System } from '../../fault/system.ts'
import { asRole, makeRole, run } from '../../migrated-database.ts'

// What `askonce grants` prints is what the processes need, and all that they need: a fresh database, the printed lines, real processes.

interface Case {
  form: Form
  schema: string
  role: string
  migrator: string
}

// Each form, each kind of schema, names with everything that has to be quoted.
const cases: Case[] = [
  { form: 'embedded', schema: 'Two words "quoted"', role: `App's "second" $$ 100%`, migrator: `The owner's` },
  { form: 'redis', schema: 'public', role: 'app', migrator: 'owner' },
]

describe.each(cases)(
  'the printed grants, BullMQ in the form $form, schema $schema',
  ({ form, schema, role, migrator }) => {
    let system: System
    let redis: TestRedis
    let url: string
    let admin: string
    let env: Record<string, string>

    const askonce = async (
      args: string[],
      more: Record<string, string> = {},
    ): Promise<{ code: number | null; out: string; err: string }> => {
      const [command = '', ...rest] = args
      const child = system.spawn(command, { ...env, ...more }, rest)
      const { code } = await child.exited
      return { code, out: child.stdout.join('\n'), err: child.stderr.join('\n') }
    }
    const printed = async (...args: string[]): Promise<string> => {
      const { code, out, err } = await askonce(['grants', ...args])
      if (code !== 0) throw new Error(err)
      return out
    }

    beforeAll(async () => {
      system = await startSystem(form, {}, async () => (redis = await startTestRedis()))
      admin = (await system.postgres.createDatabase()).url
      // Nothing by grace: what a careful administrator takes from everybody.
      await run(admin, 'revoke all on schema public from public')
      await run(
        admin,
        `do $$ begin execute format('revoke all on database %I from public', current_database()); end $$`,
      )
      await makeRole(admin, migrator)
      await makeRole(admin, role)
      url = asRole(admin, role)
      env = { DATABASE_URL: url }
      if (form === 'redis') {
        env['ASKONCE_REDIS_PREFIX'] = 'staging'
        const line = await printed('--role', 'queue', '--redis')
        for (const command of [line, 'ACL SETUSER queue >secret', 'ACL LOG RESET']) await redis.command(command)
        env['REDIS_URL'] = `redis://queue:secret@127.0.0.1:${redis.port}`
      }
      // The same roles in another system of this server.
      for (const name of [migrator, role])
        await run(admin, `alter role "${name.replaceAll('"', '""')}" in database postgres set search_path = elsewhere`)
      await run(admin, await printed('--migrator', migrator, '--schema', schema))
      const migrated = await askonce(['migrate'], { DATABASE_URL: asRole(admin, migrator) })
      if (migrated.code !== 0) throw new Error(migrated.err)
      await run(admin, await printed('--role', role, '--schema', schema))
    })
    afterAll(() => system.stop())

    test('migrate as the role that may not make anything finds nothing to do', async () => {
      expect(await askonce(['migrate'])).toEqual({ code: 0, out: 'The schema is up to date.', err: '' })
      const [row] = await run(
        admin,
        `select count(*)::int as n from pg_tables where schemaname = 'public' and tablename = 'jobs'`,
      )
      expect(row).toEqual({ n: schema === 'public' ? 1 : 0 })
    })

    test('jobs run, one and many, one is cancelled; keys are made, the sweep sweeps, doctor agrees', async () => {
      const { address } = await system.api(env)
      await Promise.all([system.started('worker', env), system.started('janitor', env)])
      expect(await (await fetch(`${address}/readyz`)).json()).toMatchObject({ status: 'ready' })
      const first = await submit(address, 'first', chat('first'), 30)
      expect([first.status, first.body.state]).toEqual([200, 'succeeded'])
      const jobs = Array.from({ length: 20 }, (_, index) => ({ key: `many-${index}`, ...chat(`many-${index}`) }))
      const many = await call(address, 'POST', '/v1/jobs/bulk', { body: { jobs } })
      expect(many.status, JSON.stringify(many.body)).toBe(200)
      const stored = async (): Promise<number> => {
        const { body } = await call(address, 'GET', '/v1/jobs?state=succeeded&limit=100')
        return (body as unknown as { data: JobView[] }).data.length
      }
      await until(stored, (count) => count === 21, 30_000)
      const later = await submit(address, 'later', { ...chat('later'), delay_seconds: 600 })
      expect((await call(address, 'POST', `/v1/jobs/${later.body.id}/cancel`)).body.state).toBe('cancelled')

      const key = await askonce(['keys', 'create', '--name', 'x', '--tenant', 'other'])
      expect([key.code, key.err]).toEqual([0, expect.stringContaining('of tenant other') as string])
      expect(await askonce(['tenants', 'set', 'other', '--ttl', '2d'])).toMatchObject({ code: 0, err: '' })
      await run(
        admin,
        `set search_path = "${schema.replaceAll('"', '""')}"; update jobs set expires_at = now() where state <> 'queued'`,
      )
      expect(await askonce(['sweep', '--json'])).toMatchObject({ code: 0, err: '' })
      const doctor = await askonce(['doctor', '--json'], {
        ASKONCE_URL: address,
        ASKONCE_API_KEY: 'fault-test-key-0123456789',
      })
      const { checks } = JSON.parse(doctor.out) as { checks: { name: string; status: string; detail: string }[] }
      expect(checks.filter(({ status }) => status === 'problem')).toEqual([])
      expect(checks).toContainEqual(expect.objectContaining({ name: 'grants', status: 'ok' }))
      // Nothing was refused: where there is no Redis, nothing could be.
      expect(form === 'redis' ? await redis.command('ACL LOG') : ['*0']).toEqual(['*0'])
    })

    test('again after an upgrade, as the owner of the tables: what the processes have made meanwhile is no obstacle', async () => {
      const grants = await printed('--role', role, '--schema', schema)
      expect(await run(asRole(admin, migrator), grants, grants)).toEqual([])
      expect(await run(admin, grants)).toEqual([])
    })

    test('start, too, as that role', async () => {
      const child: Child = system.spawn('start', { ...env, ASKONCE_DATA_DIR: join(system.directory, 'start') })
      await child.waitForLine(/"event":"janitor\.started"/, 30_000)
      child.signal('SIGTERM')
      expect((await child.exited).code).toBe(0)
    })

    test('a grant that is missing is named, by a start and by doctor, with the command that prints it', async () => {
      const table = `"${schema.replaceAll('"', '""')}".stream_chunks`
      const name = `"${role.replaceAll('"', '""')}"`
      await run(admin, `revoke delete on ${table} from ${name}`)
      const refused = await askonce(['worker'])
      expect([refused.code, refused.err]).toEqual([
        1,
        expect.stringMatching(
          /^askonce: The role .* lacks delete on stream_chunks\. Run what this prints: askonce grants --role /,
        ) as string,
      ])
      const doctor = await askonce(['doctor', '--json'])
      const { checks } = JSON.parse(doctor.out) as {
        checks: { name: string; status: string; detail: string; todo: string }[]
      }
      expect(checks.find(({ name: check }) => check === 'grants')).toMatchObject({
        status: 'problem',
        detail: expect.stringContaining('lacks delete on stream_chunks') as string,
        todo: expect.stringContaining('askonce grants --role') as string,
      })
    })
  },
)
