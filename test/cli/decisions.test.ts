import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { startFakeServer } from './fake-server.ts'
import type { FakeServer } from './fake-state.ts'
import { makeScratch, runCli, runShell, type Ended, type Scratch } from './run-cli.ts'

let server: FakeServer
let scratch: Scratch
let env: Record<string, string>

beforeAll(async () => {
  scratch = await makeScratch()
})
afterAll(() => scratch.remove())

beforeEach(async () => {
  server = await startFakeServer()
  env = { ASKONCE_URL: server.url, ASKONCE_API_KEY: server.apiKey, ASKONCE_DATA_DIR: scratch.path('data') }
  return () => server.close()
})

const run = (...args: string[]): Promise<Ended> => runCli(args, { env })

/** Submits jobs that end so; their ids, in order. */
async function jobs(fate: 'uncertain' | 'hang' | 'fail' | 'answer', ...keys: string[]): Promise<string[]> {
  server.latencyMs = 0
  const before = server.fateOf
  server.fateOf = (key) => (keys.includes(key) ? fate : before(key))
  const response = await fetch(`${server.url}/v1/jobs/bulk`, {
    method: 'POST',
    headers: { authorization: `Bearer ${server.apiKey}` },
    body: JSON.stringify({ jobs: keys.map((key) => ({ key, operation: 'embeddings', request: { model: 'm' } })) }),
  })
  const { data } = (await response.json()) as { data: { job: { id: string } }[] }
  return data.map(({ job }) => job.id)
}

const stateOf = (id: string): string | undefined => server.jobs.get(id)?.state

describe('cancel, retry and fail', () => {
  it('say what became of each job, and exit 1 when one refused', async () => {
    const [held = '', running = ''] = [...(await jobs('uncertain', 'held')), ...(await jobs('hang', 'running'))]
    const cancelled = await run('cancel', running, 'nobody')
    expect(cancelled.code).toBe(1)
    expect(cancelled.stdout).toBe(`${running} cancelled\n`)
    expect(cancelled.stderr).toBe('nobody: no job has this key\n1 job changed, 1 not\n')
    const refused = await run('retry', held)
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain('--accept-duplicate-charge')
    const json = await run('retry', held, '--accept-duplicate-charge', '--json')
    expect([json.code, JSON.parse(json.stdout)]).toEqual([0, { object: 'list', data: [{ id: held, state: 'queued' }] }])
    const [failed = ''] = await jobs('uncertain', 'other')
    expect(await run('fail', failed)).toMatchObject({ code: 0, stdout: `${failed} failed\n`, stderr: '' })
    const again = await run('fail', failed, '--json')
    expect(again.code).toBe(1)
    expect(JSON.parse(again.stdout)).toEqual({
      object: 'list',
      data: [{ id: failed, error: { code: 'state_conflict', message: 'The job is failed. (409 state_conflict)' } }],
    })
  })

  it('send the reason and the consent', async () => {
    const [id = ''] = await jobs('uncertain', 'held')
    await run('retry', id, '--accept-duplicate-charge', '--reason', 'not on the invoice')
    expect(server.decisions).toEqual([
      { action: 'retry', ids: [id], accept_duplicate_charge: true, reason: 'not on the invoice' },
    ])
  })

  it('take ids from stdin, each once', async () => {
    const ids = await jobs('uncertain', 'a', 'b', 'c')
    const pipe = `$ASKONCE list --uncertain --all --json | node -p 'JSON.parse(fs.readFileSync(0)).data.map(({id}) => id + " " + id).join("\\n")'`
    const { code, stdout } = await runShell(`${pipe} | $ASKONCE fail -`, { env })
    expect([code, stdout.trim().split('\n').toSorted()]).toEqual([0, ids.map((id) => `${id} failed`).toSorted()])
    expect(server.decisions[0]?.ids).toHaveLength(3)
  })

  it('by filter: page after page, until there is none', async () => {
    const ids = await jobs('uncertain', 'a', 'b', 'c', 'd', 'e')
    const [other = ''] = await jobs('hang', 'other')
    const { code, stdout, stderr } = await run('fail', '--uncertain', '--reason', 'too late')
    expect([code, stderr]).toEqual([0, '5 jobs changed\n'])
    expect(stdout.trim().split('\n').toSorted()).toEqual(ids.map((id) => `${id} failed`).toSorted())
    expect(server.decisions).toHaveLength(3)
    for (const decision of server.decisions) {
      expect(decision).toMatchObject({ filter: { state: 'uncertain' }, reason: 'too late' })
    }
    expect(stateOf(other)).toBe('running')
    expect(await run('fail', '--uncertain')).toMatchObject({ code: 0, stdout: '', stderr: 'No job matches.\n' })
  })

  it('by filter: sends state, age and metadata as the server wants them', async () => {
    const before = Date.now()
    await run('cancel', '--state', 'queued', '--older-than', '2h', '--metadata', 'run=7', '--metadata', 'team=a')
    const { filter, ids } = server.decisions[0] ?? {}
    expect([filter?.state, filter?.metadata, ids]).toEqual(['queued', { run: '7', team: 'a' }, undefined])
    const age = before - Date.parse(filter?.created_before ?? '')
    expect(Math.abs(age - 7_200_000)).toBeLessThan(30_000)
    await run('retry', '--metadata', 'run=7')
    expect(server.decisions[1]).toEqual({ action: 'retry', filter: { metadata: { run: '7' } } })
  })

  it('--dry-run shows which jobs are meant, and asks for nothing', async () => {
    const held = await jobs('uncertain', 'a', 'b')
    const [done = ''] = await jobs('answer', 'done')
    const dry = await run('fail', '--uncertain', '--dry-run')
    expect([dry.code, dry.stderr]).toEqual([0, 'fail would be asked of 2 jobs. Nothing was changed.\n'])
    for (const id of held) expect(dry.stdout).toContain(id)
    expect(dry.stdout).not.toContain(done)
    const byId = await run('fail', ...held, done, 'nobody', '--dry-run', '--json')
    expect(byId.code).toBe(1)
    expect((JSON.parse(byId.stdout) as { data: { id: string }[] }).data.map(({ id }) => id)).toEqual(held)
    expect(byId.stderr).toContain(`${done}: the job is succeeded; fail is for jobs that are uncertain`)
    expect(byId.stderr).toContain('nobody: no job has this key')
    const old = await run('fail', '--uncertain', '--older-than', '1d', '--dry-run')
    expect(old.stderr).toBe('fail would be asked of 0 jobs. Nothing was changed.\n')
    expect(server.decisions).toEqual([])
    expect(held.map(stateOf)).toEqual(['uncertain', 'uncertain'])
  })

  it('refuse wrong usage with exit code 2, and nothing is sent', async () => {
    const cases: [string[], string][] = [
      [['cancel'], 'no job is named'],
      [['fail', 'x', '--uncertain'], 'not by both'],
      [['fail', 'x', '-'], '- stands alone'],
      [['fail', '-'], 'stdin has no ids and no keys'],
      [['cancel', '--state', 'succeeded'], 'Allowed choices are queued, running, uncertain'],
      [['retry', '--state', 'failed', '--uncertain'], 'exclude each other'],
      [['cancel', '--older-than', '2 hours'], 'Expected a duration such as 90s'],
      [['cancel', '--older-than', '-1d'], 'Expected a duration'],
      [['cancel', '--metadata', 'run'], 'Expected NAME=VALUE'],
      [['fail', '--state', 'uncertain'], 'unknown option'],
    ]
    const refuses = async ([args, message]: [string[], string]): Promise<void> => {
      const { code, stdout, stderr } = await run(...args)
      expect([args, code, stdout]).toEqual([args, 2, ''])
      expect(stderr).toContain(message)
    }
    await Promise.all(cases.map(refuses))
    expect(server.requests).toEqual([])
  })

  it('say once what holds for every job, and change nothing twice', async () => {
    const [id = ''] = await jobs('uncertain', 'held')
    const wrong = await runCli(['fail', id, 'other'], { env: { ...env, ASKONCE_API_KEY: 'wrong-key-0123456789' } })
    expect([wrong.code, wrong.stdout]).toEqual([1, ''])
    expect(wrong.stderr).toContain('401 unauthorized')
    expect(wrong.stderr.match(/unauthorized/g)).toHaveLength(1)
  })
})

describe('get', () => {
  it('finds a job by its key where it is no id, for its ledger and decisions, too', async () => {
    const [id = ''] = await jobs('uncertain', 'tour/mars')
    await run('retry', id, '--accept-duplicate-charge', '--reason', 'it was\nnot billed')
    expect((await run('get', 'tour/mars', '--json')).stdout).toContain(id)
    const ledger = await run('get', 'tour/mars', '--attempts')
    expect(ledger.stdout).toMatch(/answered +billed/)
    expect(ledger.stdout).toContain('1 call: 1 billed; cost: $0.25\nPaid twice: no\n')
    const decisions = await run('get', 'tour/mars', '--decisions')
    expect(decisions.stdout).toMatch(/WHEN +WHAT/)
    expect(decisions.stdout).toMatch(
      /2026-03-01 10:20:30 +retry, consent +uncertain +queued +1 +night shift +it was not billed/,
    )
    expect(await run('get', 'nobody')).toMatchObject({ code: 1, stderr: 'askonce: no job has the key nobody\n' })
    expect((await run('get', id, '--attempts', '--decisions')).code).toBe(2)
  })

  it('--attempts by key finds the ledger of jobs that are gone, and says whose an attempt is where there are several', async () => {
    const [id = ''] = await jobs('answer', 'k')
    const job = server.jobs.get(id)
    if (job === undefined) throw new Error('it was not submitted')
    server.jobs.delete(id)
    expect(await run('get', 'k')).toMatchObject({ code: 1, stderr: 'askonce: no job has the key k\n' })
    expect(await run('get', id, '--attempts')).toMatchObject({ code: 1 })
    server.gone.push(job)
    const one = await run('get', 'k', '--attempts')
    expect([one.code, one.stdout]).toEqual([0, expect.stringContaining('1 call: 1 billed; cost: $0.25')])
    expect(one.stdout).not.toContain('JOB')
    const earlier = '0199c0de-0000-7000-8000-000000000000'
    server.gone.unshift({ ...job, id: earlier })
    const { stdout } = await run('get', '--key', 'k', '--attempts')
    expect(stdout).toMatch(/^JOB +# +RUN/m)
    expect(stdout.indexOf(earlier)).toBeLessThan(stdout.indexOf(id))
    expect(stdout).toContain('2 calls: 2 billed; cost: $0.50\nPaid twice: no\n')
    const { data } = JSON.parse((await run('get', 'k', '--attempts', '--json')).stdout) as { data: unknown[] }
    expect(data).toMatchObject([{ job_id: earlier }, { job_id: id }])
  })

  it('--attempts of a job that was never called says so', async () => {
    const [id = ''] = await jobs('hang', 'k')
    const job = server.jobs.get(id)
    if (job !== undefined) job.paid = 0
    expect(await run('get', 'k', '--attempts')).toMatchObject({ code: 0, stdout: 'No attempt yet.\n' })
    expect(await run('get', 'nobody', '--attempts')).toMatchObject({
      code: 1,
      stderr: 'askonce: no job has the key nobody\n',
    })
  })

  it('--attempts says what was paid twice', async () => {
    const [id = ''] = await jobs('answer', 'k')
    const job = server.jobs.get(id)
    if (job !== undefined) job.paid = 3
    const { stdout } = await run('get', 'k', '--attempts')
    expect(stdout).toContain('3 calls: 3 billed; cost: $0.75\nPaid twice: yes, 2 calls ($0.50)\n')
  })
})

describe('spend', () => {
  it('shows days and their total, what is not in the cost, and what was paid twice', async () => {
    const { code, stdout, stderr } = await run('spend')
    expect(code).toBe(0)
    expect(stdout).toMatch(/^DATE +CALLS +BILLED +MAYBE +NONE +OPEN +TOKENS +COST +TWICE$/m)
    expect(stdout).toMatch(/^2026-03-01 +4 +3 +1 +0 +0 +0\/0 +\$1\.50 \+ \? +1$/m)
    expect(stdout).toMatch(/^total +4 +3 +1 +0 +0 +0\/0 +\$1\.50 \+ \? +1 \(2\?\)$/m)
    expect(stderr).toContain('1 billed call at a price that is not known')
    expect(stderr).toContain('Paid twice: yes, 1 call ($0.25); maybe, 2 calls (at an unknown price)')
  })

  it('passes the range on, and prints JSON as the server sent it', async () => {
    const { stdout } = await run('spend', '--from', '2026-02-01', '--to', '2026-03-02', '--by-model', '--json')
    expect(stdout).toContain('"cost_usd":1.50000000000000000001')
    expect(JSON.parse(stdout)).toMatchObject({ data: [{ model: 'gpt-test' }] })
    const table = await run('spend', '--by-model')
    expect(table.stdout).toMatch(/2026-03-01 +openai +gpt-test +4/)
    const none = await run('spend', '--from', '2020-01-01')
    expect([none.code, none.stdout, none.stderr]).toEqual([
      0,
      '',
      'Nothing was called from 2026-02-01 to 2026-03-02. What the simulator was asked: --simulated\n',
    ])
  })
})
