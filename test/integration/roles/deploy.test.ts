import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { render } from '../../deploy/kustomize.ts'
import { environmentOf, workloadsOf, type Workload } from '../../deploy/workloads.ts'
import { healthPort } from '../../fault/worker-health.ts'
import { startSystem, until, type System } from '../../fault/system.ts'

// What the manifests start, with the variables that they give, but for addresses, ports and folders of this machine.

const manifests = render('deploy/kubernetes/examples/minimal')
const workloads = workloadsOf(manifests)

function workload(component: string): Workload {
  const found = workloads.get(component)
  if (found === undefined) throw new Error(`no ${component}`)
  return found
}

describe('the processes of deploy/kubernetes', () => {
  let system: System
  beforeAll(async () => {
    system = await startSystem('redis')
  })
  afterAll(() => system.stop())

  /** Starts what a container would, here. */
  const start = (component: string, here: Record<string, string> = {}) => {
    const one = workload(component)
    const [role = '', ...args] = one.container.args
    const { DATABASE_URL: _url, REDIS_URL: _redis, ...env } = environmentOf(manifests, one)
    return system.spawn(
      role,
      { ...env, HOST: '127.0.0.1', ASKONCE_DATA_DIR: join(system.directory, component), ...here },
      args,
    )
  }

  test('migrate: ends with 0, also where there is nothing to do', async () => {
    const child = start('migrate')
    expect(await child.exited).toMatchObject({ code: 0 })
    expect(child.stdout.join('\n')).toContain('up to date')
  })

  test('api, worker, janitor: each answers its probes and its scrape, and ends with 0 within its grace', async () => {
    const seen = async (role: string) => {
      const { pod, container } = workload(role)
      const { env } = await healthPort()
      const port = env['ASKONCE_HEALTH_PORT'] ?? ''
      const child = start(role, {
        ...(role === 'api' ? { PORT: port } : { ASKONCE_HEALTH_PORT: port }),
        ...(role === 'worker' ? { ASKONCE_SPOOL_DIR: join(system.directory, 'worker', 'spool') } : {}),
      })
      const status = (path = ''): Promise<number> =>
        fetch(`http://127.0.0.1:${port}${path}`).then(
          (response) => response.status,
          () => 0,
        )
      const { startupProbe, readinessProbe, livenessProbe } = container
      const ready = await until(
        () => status(readinessProbe?.httpGet.path),
        (code) => code === 200,
        30_000,
      )
      const others = await Promise.all(
        [startupProbe?.httpGet.path, livenessProbe?.httpGet.path, '/metrics'].map(status),
      )
      child.signal('SIGTERM')
      const began = performance.now()
      const { code } = await child.exited
      const inTime = performance.now() - began < (pod.terminationGracePeriodSeconds ?? 30) * 1000
      return { role, statuses: [ready, ...others], code, inTime }
    }
    const roles = ['api', 'worker', 'janitor']
    expect(await Promise.all(roles.map(seen))).toEqual(
      roles.map((role) => ({ role, statuses: [200, 200, 200, 200], code: 0, inTime: true })),
    )
  })

  test('sweep: ends at a signal after a batch; beside a janitor that sweeps, too, it ends with 0 and only what has expired goes', async () => {
    const fill = (prefix: string, count: number, ttl: string) =>
      system.sql(
        `insert into jobs (id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms,
          ttl_seconds, deadline_seconds, state, on_uncertain, max_attempts, max_paid_attempts, run_at, deadline_at, completed_at,
          expires_at)
        select gen_random_uuid(), 'default', $1 || n, sha256('x'), 'embeddings', 'm', 'openai', 5, 1000, 60, 60,
          'cancelled', 'rerun', 5, 2, now(), now(), now(), now() + $2::interval
        from generate_series(1, $3::integer) n`,
        [prefix, ttl, count],
      )
    const left = async (prefix: string): Promise<number> => {
      const [row] = await system.sql<{ n: number }>(
        'select count(*)::int as n from jobs where starts_with(idempotency_key, $1)',
        [prefix],
      )
      return row?.n ?? Number.NaN
    }
    await fill('old', 40_000, '-1 second')
    await fill('live', 100, '1 hour')
    const stopped = start('sweep')
    await until(
      () => left('old'),
      (rows) => rows < 40_000,
      30_000,
    )
    stopped.signal('SIGTERM')
    expect(await stopped.exited).toMatchObject({ code: 130 })
    expect(stopped.stdout.join('\n')).toMatch(/^swept \d+000 jobs, .*; there may be more \(stopped\)$/)
    expect(await left('old')).toBeGreaterThan(0)

    const janitor = start('janitor', { ASKONCE_HEALTH_PORT: (await healthPort()).env['ASKONCE_HEALTH_PORT'] ?? '' })
    // Before that it would end by a signal, not at one.
    await janitor.waitForLine(/"event":"janitor\.started"/, 30_000)
    const sweep = start('sweep')
    expect(await sweep.exited).toMatchObject({ code: 0 })
    expect(sweep.stdout.join('\n')).toMatch(/^swept \d+ jobs, .* dead workers$/)
    await until(
      () => left('old'),
      (rows) => rows === 0,
      30_000,
    )
    expect(await left('live')).toBe(100)
    janitor.signal('SIGTERM')
    expect(await janitor.exited).toMatchObject({ code: 0 })
  })
})
