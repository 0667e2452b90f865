import { writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { FailureVerdict } from '@askonce/core'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { answered } from '../contract/providers-answers.ts'
import { answerRows, laneRows, openRows, unreachable, unknownRows, witness, type Row } from './error-table-rows.ts'
import { call, startSystem, until, type JobView, type System } from './system.ts'

interface Lane {
  state: string
  code: string | null
  until: string | null
}

interface Attempt {
  attempt: number
  outcome: string
  billing: string
  code: string | null
}

/** While it is enabled, jobs that have run do not get ready again. */
const keepBack = `
  create function keep_back() returns trigger language plpgsql as $$
  begin
    return case when (select attempt from jobs where id = new.job_id) = 0 then new end;
  end $$;
  create trigger keep_back before insert on ready for each row execute function keep_back()`

// DESIGN.md §1.3 and §4: what a provider's answer means, line by line of ERRORS.md, from the submission to the ledger. The tables are
// those of the provider's own tests; what is added here is what the job, the lane and the books make of each verdict.
// Not covered: whether a provider really bills nothing for what it refuses with its own error object. We take its word.
describe('FAULTS 8, the error table through the whole system (redis form)', () => {
  let system: System
  let address: string

  beforeAll(async () => {
    system = await startSystem('redis')
    const env = { ASKONCE_CONFIG: await writeLanes() }
    address = (await system.api(env)).address
    await Promise.all([system.started('janitor', env), system.started('worker', env)])
    await system.sql(keepBack)
    await thaw()
    const rows = [...openRows, ...unknownRows, ...answerRows, ...laneRows]
    await system.upstream.script(rows.map(({ key, behaviour }) => Object.assign({ match: { marker: key } }, behaviour)))
    // Lines that leave their lane alone run all at once; the tests read what became of them.
    const together = [...openRows, ...unknownRows, ...answerRows, ...unreachable]
    const sent = await call(address, 'POST', '/v1/jobs/bulk', { body: { jobs: together.map(({ job }) => job) } })
    const { data } = sent.body as unknown as { data: { status: number }[] }
    if (data.some(({ status }) => status !== 202)) throw new Error(JSON.stringify(sent.body))
    await until(
      async () => {
        // So many proxies' errors at once open the breaker; the lines are looked at one by one here.
        await openLanes()
        return system.sql('select 1 from attempts where attempt = 1 and outcome is not null')
      },
      (ended) => ended.length >= together.length,
      60_000,
    )
    await openLanes()
  })
  afterEach(() => thaw())
  afterAll(() => system.stop())

  /** Nothing runs again, so that a short wait cannot be over too soon to be seen. */
  const freeze = (): Promise<unknown> => system.sql('alter table ready enable trigger keep_back')
  /** What was kept back meanwhile comes with its next change: see {@link hurry}. */
  const thaw = (): Promise<unknown> => system.sql('alter table ready disable trigger keep_back')
  const openLanes = (): Promise<unknown> =>
    system.sql(
      `update lanes set state = 'open', failures = 0, reason = null, code = null, until = null where name in ('openai', 'anthropic')`,
    )

  /** Lanes of either kind to endpoints that cannot be reached. */
  async function writeLanes(): Promise<string> {
    const server = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const { port } = server.address() as AddressInfo
    await new Promise((resolve) => server.close(resolve))
    const addresses = {
      refused: `http://127.0.0.1:${port}`,
      // A label of more than 63 characters fails in the resolver, without asking a server.
      nowhere: `http://${'a'.repeat(64)}.invalid`,
      tls: system.upstream.url.replace('http:', 'https:'),
    }
    const lanes = Object.entries(addresses).flatMap(([name, url]) => [
      { name: `${name}-openai`, kind: 'openai', base_url: `${url}/v1`, models: [`gpt-${name}`] },
      { name: `${name}-anthropic`, kind: 'anthropic', base_url: url, models: [`claude-${name}`] },
    ])
    const file = join(system.directory, 'lanes.json')
    await writeFile(file, JSON.stringify({ lanes }))
    return file
  }

  const find = async (key: string): Promise<JobView & { flags: string[] }> => {
    const { body } = await call(address, 'GET', `/v1/jobs?key=${key}`)
    const [job] = (body as unknown as { data: (JobView & { flags: string[] })[] }).data
    if (job === undefined) throw new Error(`no job ${key}`)
    return job
  }
  const inState = (key: string, state: string) =>
    until(
      () => find(key),
      (job) => job.state === state,
      15_000,
    )
  const attemptsOf = (key: string): Promise<Attempt[]> =>
    system.sql<Attempt & Record<string, unknown>>(
      `select attempt, outcome, billing, error_code as code from attempts where idempotency_key = $1 order by attempt`,
      [key],
    )
  const ended = (key: string): Promise<Attempt[]> =>
    until(
      () => attemptsOf(key),
      ([first]) => typeof first?.outcome === 'string',
      15_000,
    )
  const callsOf = async (key: string): Promise<number> => (await system.upstream.callsBy())[key] ?? 0
  const columns = async (key: string) => {
    const [row] = await system.sql<{ state: string; tries: number; paid: number; wait_ms: number }>(
      `select state, tries, paid, extract(epoch from run_at - (select finished_at from attempts a where a.job_id = j.id and attempt = 1))::float8 * 1000 as wait_ms
       from jobs j where idempotency_key = $1`,
      [key],
    )
    return row
  }
  const laneOf = async (name: string): Promise<Lane> => {
    const { body } = await call(address, 'GET', '/v1/lanes')
    const lane = (body as unknown as { data: (Lane & { name: string })[] }).data.find((row) => row.name === name)
    if (lane === undefined) throw new Error(`no lane ${name}`)
    return lane
  }
  /** Writes the past into the time of the next run, in place of waiting for it. */
  const hurry = (key: string): Promise<unknown> =>
    system.sql(`update jobs set run_at = now() where idempotency_key = $1 and state = 'queued'`, [key])
  const resume = async (lane: string): Promise<void> => {
    expect((await call(address, 'POST', `/v1/lanes/${lane}/resume`)).status).toBe(200)
  }

  /** No provider's wait is cut short; without one the first backoff is up to 1 s, or 2 s after an overload. */
  async function expectWait(key: string, { retryAfterMs, overloaded }: Partial<FailureVerdict>): Promise<void> {
    const { wait_ms: waitMs } = (await columns(key)) ?? { wait_ms: Number.NaN }
    // Both times are of the one statement that ends the attempt.
    expect(waitMs).toBeGreaterThanOrEqual(retryAfterMs ?? 0)
    const window = overloaded === true ? 2_000 : 1_000
    expect(waitMs).toBeLessThanOrEqual(
      retryAfterMs === undefined || retryAfterMs === null ? window : retryAfterMs + window,
    )
  }
  const failure = (outcome: string, { verdict }: Row): Attempt => ({
    attempt: 1,
    outcome,
    billing: verdict.billing ?? '',
    code: verdict.code ?? '',
  })
  const answer = (attempt: number): Attempt => ({ attempt, outcome: 'answered', billing: 'billed', code: null })

  test('both providers, and every action, are in the table', () => {
    expect(openRows.length + unknownRows.length + laneRows.length).toBeGreaterThan(100)
    for (const kind of ['openai', 'anthropic']) {
      const kinds = [...openRows, ...unknownRows, ...laneRows].filter((row) => row.kind === kind)
      expect(new Set(kinds.map(({ verdict }) => verdict.kind))).toEqual(
        new Set(['stop', 'rerun', 'unknown', 'pause', 'alarm']),
      )
    }
  })

  test.each(openRows.filter(({ verdict }) => verdict.kind === 'stop'))('$kind: $name: the job fails', async (row) => {
    const job = await inState(row.key, 'failed')
    expect(job.error?.code).toBe(row.verdict.code)
    expect(await attemptsOf(row.key)).toEqual([failure('rejected', row)])
    expect(await columns(row.key)).toMatchObject({ tries: 1, paid: 0 })
    expect(await callsOf(row.key)).toBe(0)
  })

  test.each(openRows.filter(({ verdict }) => verdict.kind === 'rerun'))('$kind: $name: it runs again', async (row) => {
    await expectWait(row.key, row.verdict)
    await hurry(row.key)
    await inState(row.key, 'succeeded')
    expect(await attemptsOf(row.key)).toEqual([failure('failed', row), answer(2)])
    expect(await columns(row.key)).toMatchObject({ tries: 2, paid: 1 })
    expect(await callsOf(row.key)).toBe(1)
  })

  test.each(unknownRows)('$kind: $name: policy $policy decides', async (row) => {
    const state = { hold: 'uncertain', fail: 'failed', rerun: 'succeeded' }[row.policy]
    const job = await inState(row.key, state)
    const again = row.policy === 'rerun'
    expect(job.error?.code ?? null).toBe(again ? null : row.verdict.code)
    expect(await attemptsOf(row.key)).toEqual([failure('unknown', row), ...(again ? [answer(2)] : [])])
    expect(await columns(row.key)).toMatchObject(again ? { tries: 2, paid: 2 } : { tries: 1, paid: 1 })
    expect(await callsOf(row.key)).toBe((row.billed ? 1 : 0) + (again ? 1 : 0))
  })

  test.each(answerRows)('$kind: 200 $name: an answer, flagged $flags, never asked again', async (row) => {
    expect(await inState(row.key, 'succeeded')).toMatchObject({ flags: row.flags, error: null })
    expect(await attemptsOf(row.key)).toEqual([answer(1)])
    expect(await callsOf(row.key)).toBe(1)
  })

  test('an answer larger than any request may be is stored all the same', async () => {
    const [row] = await system.sql<{ bytes: number }>(
      `select coalesce(response_bytes, length(response)) as bytes from answers join jobs on id = job_id where idempotency_key = 'answer-large'`,
    )
    expect(answerRows.length).toBeGreaterThan(answered.length)
    expect(row?.bytes).toBeGreaterThan(12_000_000)
  })

  test.each(unreachable)('$kind: $name: nothing was sent, and it is no try', async ({ key, lane }) => {
    const rows = await ended(key)
    // It goes on trying: all ends so far are the same.
    expect(new Set(rows.map(({ outcome, billing, code }) => JSON.stringify([outcome, billing, code])))).toEqual(
      new Set([JSON.stringify(['failed', 'none', 'connection_failed'])]),
    )
    const job = await find(key)
    expect(job.error?.code).toBe('connection_failed')
    // Between two attempts: one that is under way runs, and counts as paid until its end.
    const between = await until(
      () => columns(key),
      (row) => row?.state === 'queued',
      10_000,
    )
    expect(between).toMatchObject({ tries: 0, paid: 0 })
    expect(await callsOf(key)).toBe(0)
    expect((await call(address, 'POST', `/v1/jobs/${job.id}/cancel`)).status).toBe(200)
    await resume(lane)
  })

  describe.each(['openai', 'anthropic'] as const)('what closes the lane of %s', (kind) => {
    const submitRow = async ({ job: { key, ...body } }: Pick<Row, 'job'>): Promise<void> => {
      expect((await call(address, 'POST', '/v1/jobs', { key, body })).status).toBe(202)
    }
    const own = laneRows.filter((row) => row.kind === kind)
    const submitFrozen = async (row: Row): Promise<Attempt[]> => {
      await freeze()
      await submitRow(row)
      return ended(row.key)
    }

    test.each(own.filter(({ verdict }) => verdict.kind === 'pause'))('$name: a pause', async (row) => {
      expect(await submitFrozen(row)).toEqual([failure('paused', row)])
      const [lane] = await system.sql<{ state: string; code: string; ms: number }>(
        `select state, code, extract(epoch from until - changed_at)::float8 * 1000 as ms from lanes
         where name = $1 and model = $2 and state <> 'open'`,
        [kind, row.verdict.wholeLane === true ? '' : row.job.request.model],
      )
      expect([lane?.state, lane?.code]).toEqual(['paused', row.verdict.code])
      expect((await laneOf(kind)).state).toBe(row.verdict.wholeLane === true ? 'paused' : 'open')
      // At least our own wait: between 1 and 2 s for the first.
      const { retryAfterMs = null } = row.verdict
      expect(lane?.ms).toBeGreaterThanOrEqual(Math.max(retryAfterMs ?? 0, 1_000))
      expect(lane?.ms).toBeLessThanOrEqual(Math.max(retryAfterMs ?? 0, 2_000))
      const job = await find(row.key)
      expect([job.state, job.error?.code]).toEqual(['queued', row.verdict.code])
      expect(await columns(row.key)).toMatchObject({ tries: 0, paid: 0 })
      await thaw()
      await resume(kind)
      await hurry(row.key)
      await inState(row.key, 'succeeded')
      expect(await attemptsOf(row.key)).toEqual([failure('paused', row), answer(2)])
      expect(await callsOf(row.key)).toBe(1)
    })

    test.each(own.filter(({ verdict }) => verdict.kind === 'alarm'))('$name: an alarm', async (row) => {
      await submitRow(row)
      expect(await ended(row.key)).toEqual([failure('alarmed', row)])
      const lane = await laneOf(kind)
      expect([lane.state, lane.code, lane.until]).toEqual(['stopped', row.verdict.code, null])
      const job = await find(row.key)
      expect([job.state, job.error?.code]).toEqual(['queued', row.verdict.code])
      expect(await columns(row.key)).toMatchObject({ tries: 0, paid: 0 })
      // The job has been due all the time; the other lane works, this one stands still.
      await seePassing(witness(kind), row.key)
      expect(await attemptsOf(row.key)).toHaveLength(1)
      await resume(kind)
      await inState(row.key, 'succeeded')
      expect(await attemptsOf(row.key)).toEqual([failure('alarmed', row), answer(2)])
      expect(await callsOf(row.key)).toBe(1)
    })

    test.each(own.filter(({ verdict }) => verdict.kind === 'rerun'))('$name: an overload is counted', async (row) => {
      expect(await submitFrozen(row)).toEqual([failure('failed', row)])
      await expectWait(row.key, row.verdict)
      expect(await system.sql(`select state, failures from lanes where name = $1 and model = ''`, [kind])).toEqual([
        { state: 'open', failures: 1 },
      ])
      await thaw()
      await hurry(row.key)
      await inState(row.key, 'succeeded')
      expect(await attemptsOf(row.key)).toEqual([failure('failed', row), answer(2)])
      await until(
        () => system.sql<{ failures: number }>(`select failures from lanes where name = $1 and model = ''`, [kind]),
        ([lane]) => lane?.failures === 0,
        5_000,
      )
      expect(await callsOf(row.key)).toBe(1)
    })
  })

  test('five overloads in a row open the breaker, and after its wait one probe goes, not all that wait', async () => {
    const keys = Array.from({ length: 8 }, (_, index) => `breaker-${index}`)
    const other = witness('anthropic')
    const body = (key: string) => ({ ...other, key, request: { ...other.request, user: key } })
    await system.upstream.script([
      { kind: 'refuse', status: 503, body: { error: { type: 'server_error', message: 'x' } }, times: 5 },
    ])
    // None is refused twice before all five are.
    await freeze()
    for (const key of keys.slice(0, 5)) {
      expect((await laneOf('openai')).state).toBe('open')
      const { key: _key, ...job } = body(key)
      expect((await call(address, 'POST', '/v1/jobs', { key, body: job })).status).toBe(202)
      await ended(key)
    }
    expect(await laneOf('openai')).toMatchObject({ state: 'breaker', code: 'provider_unavailable' })

    await system.upstream.script([{ kind: 'hang', match: { model: 'gpt-test' } }])
    await system.sql(`update lanes set until = now() + interval '1 hour' where name = 'openai' and model = ''`)
    await thaw()
    const bulk = await call(address, 'POST', '/v1/jobs/bulk', { body: { jobs: keys.slice(5).map(body) } })
    expect(bulk.status).toBe(200)
    await system.sql(`update jobs set run_at = now() where idempotency_key like 'breaker-%'`)
    await seePassing(witness('openai'), 'breaker-closed')
    const made = (): Promise<number[]> => Promise.all(keys.map(callsOf))
    const sum = (counts: number[]): number => counts.reduce((all, one) => all + one, 0)
    expect(sum(await made())).toBe(0)

    await system.sql(`update lanes set until = now() where name = 'openai' and model = ''`)
    await until(made, (counts) => sum(counts) === 1, 10_000)
    await seePassing(witness('openai'), 'breaker-probing')
    expect(sum(await made())).toBe(1)
    expect(
      await system.sql(`select 1 from jobs where idempotency_key like 'breaker-_' and state = 'queued'`),
    ).toHaveLength(7)
  })

  /** Runs a job on another lane, to see that time has passed in the whole system. */
  async function seePassing({ key: _key, ...body }: Row['job'], name: string): Promise<void> {
    const seen = await call(address, 'POST', '/v1/jobs', { key: `witness-${name}`, body, wait: 15 })
    expect(seen.body.state).toBe('succeeded')
  }
})
