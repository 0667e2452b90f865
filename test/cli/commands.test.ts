import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { exactAnswer, startFakeServer } from './fake-server.ts'
import type { FakeServer } from './fake-state.ts'
import { makeScratch, runCli, runShell, type Scratch } from './run-cli.ts'

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

const run = (...args: string[]) => runCli(args, { env })
const shorthand = ['--model', 'simulated/small', '--prompt', 'Why?']

describe('submit', () => {
  it('submits the shorthand, waits, and shows the answer', async () => {
    const { code, stdout } = await run('submit', 'tour/1', ...shorthand, '--system', 'Be brief.', '--wait', '5')
    expect(code).toBe(0)
    expect(stdout).toMatch(/^state +succeeded \(simulated\)$/m)
    expect(stdout).toContain('café for tour/1')
    const [job] = [...server.jobs.values()]
    expect(JSON.parse(job?.request ?? '')).toEqual({
      model: 'simulated/small',
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Why?' },
      ],
    })
  })

  it('says how to get an answer that is not there yet, and that a stored one was asked for before', async () => {
    server.latencyMs = 500
    const first = await run('submit', 'tour/1', ...shorthand)
    expect(first.code).toBe(0)
    expect(first.stderr).toMatch(/Accepted\. The answer: askonce get 0199c0de-\S+ --wait 60/)
    await run('get', '--key', 'tour/1', '--wait', '5')
    const second = await run('submit', 'tour/1', ...shorthand)
    expect(second.stderr).toContain('The stored answer; nothing was asked again.')
    expect(server.calls('tour/1')).toBe(1)
  })

  it('takes a request from a file, from stdin and inline, and sends it as it is written', async () => {
    const request = '{ "model": "simulated/small", "input": "x", "seed": 12345678901234567890 }'
    const file = scratch.path('request.json')
    await writeFile(file, request)
    await run('submit', 'file', '-o', 'embeddings', '--request', file)
    await runCli(['submit', 'stdin', '-o', 'embeddings', '--request', '-'], { env, input: request })
    await run('submit', 'inline', '-o', 'embeddings', '--request', request, '--priority', '0', '--metadata', 'a=b=c')
    expect(server.bodies).toHaveLength(3)
    for (const body of server.bodies) expect(body).toContain(`"request":${request}}`)
    expect(JSON.parse(server.bodies[2] ?? '')).toMatchObject({ priority: 0, metadata: { a: 'b=c' } })
  })

  it('exits 1 when there will be no answer by itself', async () => {
    server.fateOf = (key) => (key === 'failing' ? 'fail' : 'uncertain')
    const failed = await run('submit', 'failing', ...shorthand, '--wait', '5')
    expect(failed.code).toBe(1)
    expect(failed.stdout).toContain('provider_rejected: No.')
    expect(failed.stderr).toContain('askonce retry')
    const held = await run('submit', 'held', ...shorthand, '--wait', '5')
    expect(held.code).toBe(1)
    expect(held.stderr).toContain('--accept-duplicate-charge')
  })

  it('refuses wrong usage with exit code 2, one line, and nothing sent', async () => {
    const cases: [string[], string][] = [
      [['submit', 'k'], 'either as --prompt with --model, or as --request'],
      [['submit', 'k', '-p', 'x'], '--prompt needs --model'],
      [['submit', 'k', '-r', '{"model":'], 'the request is not JSON'],
      [['submit', 'k', '-r', '/nowhere.json'], 'cannot read /nowhere.json'],
      [['submit', 'clé', ...shorthand], 'printable ASCII'],
      [['submit', 'k', ...shorthand, '--wait', 'abc'], 'Expected a whole number'],
      [['submit', 'k', ...shorthand, '--on-uncertain', 'maybe'], 'Allowed choices are rerun, hold, fail'],
      [['submit'], "missing required argument 'key'"],
      [['lst'], 'Did you mean list?'],
      [['batch', 'x.jsonl'], "required option '-o, --out <file>' not specified"],
      [['get'], 'name one job: by its id or its key, or by --key'],
    ]
    const refuses = async ([args, message]: [string[], string]): Promise<void> => {
      const { code, stdout, stderr } = await run(...args)
      expect(code, args.join(' ')).toBe(2)
      expect(stdout).toBe('')
      expect(stderr).toMatch(/^askonce: /)
      expect(stderr).toContain(message)
    }
    await Promise.all(cases.map(refuses))
    expect(server.requests).toEqual([])
  })

  it('shows what the server refuses, in one line, and what to do', async () => {
    await run('submit', 'k', ...shorthand)
    const { code, stderr } = await run('submit', 'k', '-m', 'other', '-p', 'Why?')
    expect(code).toBe(1)
    expect(stderr).toMatch(/^askonce: .*\(422 idempotency_key_reused\)\n.+\n$/)
  })
})

describe('get and list', () => {
  beforeEach(async () => {
    server.fateOf = (key) => (key === 'k/2' ? 'uncertain' : 'answer')
    const items = [1, 2, 3].map((number) => ({
      key: `k/${number}`,
      operation: 'embeddings',
      request: { model: 'm', input: 'x' },
    }))
    const response = await fetch(`${server.url}/v1/jobs/bulk`, {
      method: 'POST',
      headers: { authorization: `Bearer ${server.apiKey}` },
      body: JSON.stringify({ jobs: items }),
    })
    await response.text()
    server.latencyMs = 0
  })

  it('prints the stored bytes exactly', async () => {
    const out = scratch.path('answer.json')
    expect((await runShell(`$ASKONCE get --key k/1 --wait 5 --response > ${out}`, { env })).code).toBe(0)
    expect(await readFile(out, 'utf8')).toBe(exactAnswer('k/1'))
    const held = await run('get', '--key', 'k/2', '--wait', '5', '--response')
    expect(held).toMatchObject({ code: 1, stdout: '' })
    expect(held.stderr).toContain('there is no answer: the job is uncertain')
  })

  it.each([
    [
      'chat completions',
      ['{"choices":[{"index":0,"delta":{"content":"Red "}}]}', '{"choices":[{"delta":{"content":"dust"}}]}', '[DONE]'],
    ],
    [
      'messages',
      [
        '{"type":"content_block_delta","delta":{"text":"Red "}}',
        '{"type":"content_block_delta","delta":{"text":"dust"}}',
      ],
    ],
    [
      'responses',
      ['{"type":"response.output_text.delta","delta":"Red "}', '{"type":"response.output_text.delta","delta":"dust"}'],
    ],
  ])('prints what a stream of %s says, and its events with --response', async (_, events) => {
    const stream = events.map((data) => `data: ${data}\n\n`).join('')
    server.streams.set('k/1', stream)
    const shown = await run('get', '--key', 'k/1', '--wait', '5')
    expect(shown.stdout).toMatch(/\n\nRed dust\n$/)
    expect((await run('get', '--key', 'k/1', '--response')).stdout).toBe(stream)
    expect((await run('get', '--key', 'k/1', '--json')).stdout).toContain('"response":null')
    server.streams.clear()
  })

  it('prints the ledger, and JSON as the server sent it', async () => {
    const { stdout } = await run('get', '--key', 'k/1', '--attempts')
    expect(stdout).toMatch(/OUTCOME +BILLING/)
    expect(stdout).toMatch(/answered +billed +simulated +200/)
    const { stdout: json } = await run('get', '--key', 'k/1', '--wait', '5', '--json')
    expect(json).toContain(`"response":${exactAnswer('k/1')}`)
    expect(JSON.parse(json)).toMatchObject({ key: 'k/1', state: 'succeeded' })
  })

  it('says which job is not there', async () => {
    expect(await run('get', '--key', 'nobody')).toMatchObject({
      code: 1,
      stderr: 'askonce: no job has the key nobody\n',
    })
    const unknown = await run('get', '0199c0de-0000-7000-8000-ffffffffffff')
    expect(unknown.code).toBe(1)
    expect(unknown.stderr).toContain('404 not_found')
  })

  it('lists with times and totals, filtered and limited', async () => {
    await run('get', '--key', 'k/2', '--wait', '5')
    const all = await run('list')
    expect(all.stdout).toMatch(/STATE.*KEY/)
    expect(all.stdout).toContain('just now')
    expect(all.stderr).toBe('3 jobs: 2 succeeded, 1 uncertain\n')
    const held = await run('list', '--uncertain')
    expect(held.stdout).toContain('k/2')
    expect(held.stdout).not.toContain('k/1')
    const page = await run('list', '--limit', '2')
    expect(page.stderr).toBe('2 jobs: 1 succeeded, 1 uncertain. There are more: --limit N or --all\n')
    const json = JSON.parse((await run('list', '--all', '--json')).stdout) as { data: unknown[]; has_more: boolean }
    expect(json.data).toHaveLength(3)
    expect(json.has_more).toBe(false)
  })
})

describe('lanes', () => {
  it('are listed and resumed', async () => {
    const { stdout } = await run('lanes', 'list')
    expect(stdout).toMatch(/openai +- +stopped +resumed +The provider refused the credentials/)
    expect(stdout).toMatch(/openai +gpt-paused +paused +in \S+ \S+ +Rate limit reached/)
    expect(await run('lanes', 'resume', 'openai')).toMatchObject({ code: 0, stdout: 'openai open\n' })
    expect(await run('lanes', 'resume', 'openai', '--model', 'gpt-paused')).toMatchObject({
      code: 0,
      stdout: 'openai open, gpt-paused open\n',
    })
    expect((await run('lanes', 'resume', 'nobody')).code).toBe(1)
  })
})

describe('without a server', () => {
  it('says what to run, with exit code 3', async () => {
    const nowhere = await runCli(['list'], { env: { ASKONCE_DATA_DIR: scratch.path('empty') } })
    expect(nowhere.code).toBe(3)
    expect(nowhere.stderr).toContain('npm start')
    await server.pause()
    const gone = await run('list')
    await server.resume()
    expect(gone.code).toBe(3)
    expect(gone.stderr).toMatch(/^askonce: no server answers at .*\nStart one with: npm start\n$/)
  })

  it('reports every problem of the configuration, with exit code 2', async () => {
    const { code, stderr } = await runCli(['list'], { env: { ASKONCE_URL: 'nonsense', ASKONCE_API_KEI: 'x' } })
    expect(code).toBe(2)
    expect(stderr).toContain('ASKONCE_URL')
    expect(stderr).toContain('did you mean ASKONCE_API_KEY?')
  })
})

describe('help', () => {
  it('explains every command with an example, and the exit codes', async () => {
    const { code, stdout } = await run('--help')
    expect(code).toBe(0)
    expect(stdout).toContain('Exit codes:')
    const names = 'submit batch get list cancel retry fail forget spend lanes keys tenants sweep doctor'.split(' ')
    const explains = async (name: string): Promise<void> => {
      expect(stdout).toMatch(new RegExp(`^ {2}${name} `, 'm'))
      const help = await run(name, '--help')
      expect(help.code).toBe(0)
      expect(help.stdout).toMatch(/Examples:\n {2}.*askonce /)
    }
    await Promise.all(names.map(explains))
  })

  it('tells the version, and ends with 2 when no command is given', async () => {
    const manifest = JSON.parse(await readFile(new URL('../../apps/cli/package.json', import.meta.url), 'utf8')) as {
      version: string
    }
    expect((await run('--version')).stdout.trim()).toBe(manifest.version)
    expect((await run()).code).toBe(2)
  })
})
