import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { startFakeServer } from './fake-server.ts'
import type { FakeServer } from './fake-state.ts'
import { runCli, type Ended } from './run-cli.ts'

let server: FakeServer
let env: Record<string, string>
beforeEach(async () => {
  server = await startFakeServer()
  env = { ASKONCE_URL: server.url, ASKONCE_API_KEY: server.apiKey }
})
afterEach(() => server.close())

const run = (...args: string[]): Promise<Ended> => runCli(args, { env })

/** Submits jobs that end so; their ids, in order. */
async function jobs(fate: 'fail' | 'answer' | 'uncertain', ...keys: string[]): Promise<string[]> {
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

describe('forget', () => {
  it('counts what would go with --dry-run, and then deletes it; one that needs consent stays and is said', async () => {
    const [good = ''] = await jobs('answer', 'good')
    const [paid = ''] = await jobs('fail', 'paid')
    const dry = await run('forget', '--metadata', 'customer=17', '--key-prefix', 'c', '--dry-run')
    expect([dry.code, dry.stdout]).toEqual([1, ''])
    expect(dry.stderr).toContain('1 job would be forgotten, 1 not\nNothing was changed.')
    expect(server.decisions[0]).toMatchObject({
      filter: { metadata: { customer: '17' }, key_prefix: 'c' },
      dry_run: true,
    })
    expect(server.jobs.size).toBe(2)
    const done = await run('forget', '--metadata', 'customer=17')
    expect([done.code, done.stdout]).toEqual([1, `${good} deleted\n`])
    expect(done.stderr).toContain(`${paid}: It may be paid for again.`)
    expect(done.stderr).toContain('--accept-duplicate-charge')
    expect([...server.jobs.keys()]).toEqual([paid])
    const rest = await run('forget', 'paid', '--accept-duplicate-charge', '--ledger')
    expect([rest.code, rest.stdout]).toEqual([0, `${paid} deleted\n`])
    expect(rest.stderr).toContain('1 job forgotten\n2 rows of the ledger erased')
    expect(server.erased).toEqual([{ filter: { key: 'paid' } }])
    expect(server.jobs.size).toBe(0)
  })

  it('erases the ledger of a key whose job has been gone for long', async () => {
    const gone = await run('forget', 'long/gone', '--ledger')
    expect([gone.code, gone.stdout]).toEqual([1, ''])
    expect(gone.stderr).toContain('long/gone: no job has this key')
    expect(server.erased).toEqual([{ filter: { key: 'long/gone' } }])
  })

  it('erases the ledger of what has been gone for long by the filter, and never all of it', async () => {
    await run('forget', '--key-prefix', 'c17/', '--ledger')
    expect(server.erased).toEqual([{ filter: { key_prefix: 'c17/' } }])
    await run('forget', '--state', 'failed', '--ledger')
    expect(server.erased).toHaveLength(1)
  })
})

describe('jobs by key', () => {
  it('cancel, fail and retry take keys as get does, and --key for one that looks like an id', async () => {
    const [first = '', second = ''] = await jobs('uncertain', 'tour/mars', '0199c0de-0000-7000-8000-000000000000')
    expect(await run('fail', 'tour/mars')).toMatchObject({ code: 0, stdout: `${first} failed\n` })
    expect(await run('cancel', '--key', '0199c0de-0000-7000-8000-000000000000')).toMatchObject({
      code: 0,
      stdout: `${second} cancelled\n`,
    })
    const retried = await run('retry', 'tour/mars', first, 'no such key', '--accept-duplicate-charge')
    expect([retried.code, retried.stdout]).toEqual([1, `${first} queued\n`])
    expect(retried.stderr).toContain('no such key: no job has this key')
  })
})

describe('list and spend', () => {
  it('ask for metadata, keys and what was paid', async () => {
    await jobs('answer', 'one')
    expect((await run('list', '--metadata', 'run=7', '--key-prefix', 'o', '--twice')).code).toBe(0)
    expect((await run('list', '--maybe', '--twice')).stderr).toContain('exclude each other')
    expect((await run('spend', '--from', '2026-01-01', '--since', '7d')).code).toBe(2)
  })

  it('name the keys that were paid for twice', async () => {
    const { stdout } = await run('spend', '--metadata', 'run=7', '--since', '12h', '--tz', 'Europe/Berlin')
    expect(stdout).toContain('nightly/7')
    expect(stdout).toContain('yes, 1 call ($0.25)')
  })
})
