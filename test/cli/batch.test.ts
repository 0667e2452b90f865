import { existsSync, readFileSync } from 'node:fs'
import { appendFile, readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { exactAnswer, startFakeServer, type FakeServer } from './fake-server.ts'
import { makeScratch, runCli, runShell, startCli, until, type Scratch } from './run-cli.ts'

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

interface Line {
  index: number
  key: string
  custom_id?: string
  id?: string
  state: string
  response?: unknown
  error?: { code: string; message: string }
}

interface Summary {
  total: number
  answered: number
  kept: number
  replayed: number
  attached: number
  new: number
  failed: number
  uncertain: number
  cost_usd: number
  paid_attempts: number
  errors: { code: string; count: number; lines: number[] }[]
}

const question = (number: number): string =>
  JSON.stringify({
    key: `q/${number}`,
    operation: 'chat.completions',
    request: { model: 'simulated/small', messages: [{ role: 'user', content: `Question ${number}` }] },
  })

const questions = (count: number): string =>
  Array.from({ length: count }, (_, index) => `${question(index)}\n`).join('')

let files = 0
async function inputFile(text: string): Promise<string> {
  files += 1
  const path = scratch.path(`input-${files}.jsonl`)
  await writeFile(path, text)
  return path
}

function outPath(): string {
  files += 1
  return scratch.path(`out-${files}.jsonl`)
}

async function linesIn(path: string): Promise<Line[]> {
  const text = await readFile(path, 'utf8')
  expect(text.endsWith('\n')).toBe(true)
  return text
    .slice(0, -1)
    .split('\n')
    .map((line) => JSON.parse(line) as Line)
}

const summaryOf = (stdout: string): Summary => JSON.parse(stdout) as Summary

describe('input', () => {
  it('takes all three forms, CRLF, a byte order mark, empty lines and a last line without an end', async () => {
    const openAi = {
      custom_id: 'c-1',
      method: 'POST',
      url: '/v1/embeddings',
      body: { model: 'simulated/small', input: 'one' },
    }
    const text = [
      `\ufeff${question(1)}`,
      '',
      JSON.stringify(openAi),
      '   ',
      '{"prompt":"Hello","model":"simulated/small","system":"Be short."}',
      '{"prompt":"Hello"}',
    ].join('\r\n')
    const [input, out] = [await inputFile(text), outPath()]
    const { code, stderr } = await runCli(['batch', input, '--out', out, '--model', 'simulated/large'], { env })
    expect(stderr).toContain('4 of 4 lines answered (0 replayed, 4 new), 0 failed')
    expect(code).toBe(0)

    const lines = await linesIn(out)
    expect(lines.map(({ index }) => index)).toEqual([0, 2, 4, 5])
    expect(lines.map(({ key }) => key)).toEqual([
      'q/1',
      'c-1',
      expect.stringMatching(/^batch\/[0-9a-f]{32}$/),
      expect.stringMatching(/^batch\/[0-9a-f]{32}$/),
    ])
    expect(lines[1]?.custom_id).toBe('c-1')
    const sent = [...server.jobs.values()].map(({ operation, request }) => ({
      operation,
      request: JSON.parse(request) as unknown,
    }))
    expect(sent[1]).toEqual({ operation: 'embeddings', request: openAi.body })
    expect(sent[2]?.request).toEqual({
      model: 'simulated/small',
      messages: [
        { role: 'system', content: 'Be short.' },
        { role: 'user', content: 'Hello' },
      ],
    })
    expect(sent[3]?.request).toEqual({ model: 'simulated/large', messages: [{ role: 'user', content: 'Hello' }] })
  })

  it('writes answers byte for byte, but for the line ends of a provider that indents', async () => {
    server.answerOf = (key) =>
      key === 'q/1'
        ? '{\n  "id": 1.0,\n  "text": "two\\n  lines: \\u00e9",\n  "big": 12345678901234567890\n}'
        : exactAnswer(key)
    const [input, out] = [await inputFile(questions(2)), outPath()]
    expect((await runCli(['batch', input, '--out', out], { env })).code).toBe(0)
    const [first = '', second = ''] = (await readFile(out, 'utf8')).split('\n')
    expect(first.endsWith(`"response":${exactAnswer('q/0')}}`)).toBe(true)
    expect(second.endsWith('"response":{"id":1.0,"text":"two\\n  lines: \\u00e9","big":12345678901234567890}}')).toBe(
      true,
    )
  })

  it('gives equal lines one job and each its own line', async () => {
    const same = '{"prompt":"Same","model":"simulated/small"}\n'
    const [input, out] = [await inputFile(same + question(1) + '\n' + same + question(1) + '\n'), outPath()]
    const { stdout } = await runCli(['batch', input, '--out', out, '--json'], { env })
    expect(summaryOf(stdout)).toMatchObject({ total: 4, answered: 4, new: 4, paid_attempts: 2 })
    expect(server.jobs.size).toBe(2)
    const lines = await linesIn(out)
    expect(lines.map(({ index }) => index)).toEqual([0, 1, 2, 3])
    expect(lines[0]?.id).toBe(lines[2]?.id)
  })

  it('reports every bad line with its place before anything is sent', async () => {
    const bad = [
      question(1),
      '{"operation":"chat.completions",',
      '{"operation":"chat","request":{}}',
      '{"operation":"chat.completions","request":{"messages":[{"role":"user","content":"x"}]}}',
      '{"operation":"chat.completions","request":{"model":"m","messages":[{"role":"user"},7]}}',
      '{"prompt":"no model"}',
      '{"key":"q/1","operation":"embeddings","request":{"model":"m","input":"another request"}}',
      '{"key":"caf\u00e9","operation":"embeddings","request":{"model":"m","input":"x"}}',
      '{"operation":"embeddings","request":{"model":"m","input":"x"},"ttl":5}',
      '{"operation":"embeddings","request":{"model":"m","input":"x"},"priority":10}',
      '{"custom_id":"c","method":"GET","url":"/v1/embeddings","body":{"model":"m","input":"x"}}',
      '{"custom_id":"c","method":"POST","url":"/v1/images","body":{"model":"m"}}',
      '[1]',
      '{"operation":"embeddings","request":{"model":"m","input":"x","input":"y"}}',
      ...Array.from({ length: 20 }, () => 'null'),
    ]
    const [input, out] = [await inputFile(bad.join('\n')), outPath()]
    const { code, stderr } = await runCli(['batch', input, '--out', out], { env })
    expect(code).toBe(2)
    for (const place of [
      'line 2:',
      'line 3 /operation: expected one of',
      'line 4 /request/model: expected the name of a model',
      'line 5 /request/messages/1: expected a message',
      'line 6 /model: missing',
      'line 7 /key: the key "q/1" names another request on line 1',
      'line 8 /key: ',
      'line 9 /ttl: not known here',
      'line 10 /priority: expected a whole number from 0 (first) to 9',
      'line 11 /method: expected "POST"',
      'line 12 /url: expected one of',
      'line 13: expected a JSON object',
      'line 14 /request: the member "input" appears twice',
    ]) {
      expect(stderr).toContain(place)
    }
    expect(stderr).toContain('askonce: 33 bad lines of 34')
    expect(stderr).toContain('nothing was submitted')
    expect(stderr).toContain('The first 20 are shown, 13 more are not.')
    expect(server.requests).toEqual([])
    expect(existsSync(out)).toBe(false)
  })

  it('finishes a file without questions', async () => {
    const [input, out] = [await inputFile('\n\n'), outPath()]
    expect((await runCli(['batch', input, '--out', out], { env })).code).toBe(0)
    expect(await readFile(out, 'utf8')).toBe('')
  })
})

describe('resuming', () => {
  it('ends with the same file after kill -9, and submits nothing again that it has', async () => {
    server.latencyMs = 150
    const input = await inputFile(questions(60))
    const [straight, killed] = [outPath(), outPath()]
    await runCli(['batch', input, '--out', straight], { env })
    await server.close()

    server = await startFakeServer()
    env['ASKONCE_URL'] = server.url
    server.latencyMs = 150
    const run = startCli(['batch', input, '--out', killed, '--in-flight', '10'], { env })
    await until(() => existsSync(killed) && readFileSync(killed, 'utf8').split('\n').length > 15, 'fifteen answers')
    run.child.kill('SIGKILL')
    expect((await run.ended).signal).toBe('SIGKILL')
    // As a crash in the middle of a write leaves it.
    await appendFile(killed, '{"index":59,"key":"q/59","fing')
    const kept = (await readFile(killed, 'utf8')).split('\n').slice(0, -1)
    const keptKeys = new Set(kept.map((line) => (JSON.parse(line) as Line).key))
    expect(kept.length).toBeLessThan(60)
    server.bulks.length = 0

    const again = await runCli(['batch', input, '--out', killed, '--json'], { env })
    expect(again.code).toBe(0)
    expect(summaryOf(again.stdout)).toMatchObject({ total: 60, answered: 60, kept: kept.length, failed: 0 })
    expect(await readFile(killed, 'utf8')).toBe(await readFile(straight, 'utf8'))
    expect(server.bulks.flat().filter((key) => keptKeys.has(key))).toEqual([])
    for (let number = 0; number < 60; number += 1) expect(server.calls(`q/${number}`)).toBe(1)
    expect((await readdir(scratch.path('.'))).filter((name) => name.endsWith('.tmp'))).toEqual([])
  })

  it('puts a complete file in order without asking the server', async () => {
    const [input, out] = [await inputFile(questions(5)), outPath()]
    await runCli(['batch', input, '--out', out], { env })
    const ordered = await readFile(out, 'utf8')
    const shuffled = ordered.trimEnd().split('\n').toReversed().join('\n')
    await writeFile(out, `${shuffled}\n`)
    await server.pause()
    const { code, stderr } = await runCli(['batch', input, '--out', out], { env })
    await server.resume()
    expect(code).toBe(0)
    expect(stderr).toContain(`5 were in ${out} already`)
    expect(await readFile(out, 'utf8')).toBe(ordered)
  })

  it('asks a line again whose request was edited, although its key has an answer', async () => {
    const [input, out] = [await inputFile(questions(2)), outPath()]
    await runCli(['batch', input, '--out', out], { env })
    await writeFile(input, questions(2).replace('Question 1', 'Another question'))
    const { code, stderr } = await runCli(['batch', input, '--out', out], { env })
    expect(code).toBe(1)
    expect(stderr).toContain('1 idempotency_key_reused (line 2)')
    const lines = await linesIn(out)
    expect(lines[0]?.state).toBe('succeeded')
    expect(lines[1]).toMatchObject({ state: 'refused', error: { code: 'idempotency_key_reused' } })
  })

  it('cuts a torn line but touches no file that it did not write', async () => {
    const input = await inputFile(questions(2))
    const notes = outPath()
    for (const text of ['my notes\n', 'my notes', '{"answers":1}\n', 'key,value\na,b\n']) {
      await writeFile(notes, text)
      const { code, stderr } = await runCli(['batch', input, '--out', notes], { env })
      expect(code).toBe(2)
      expect(stderr).toContain('holds no answer to this input')
      expect(await readFile(notes, 'utf8')).toBe(text)
    }
    const self = await runCli(['batch', input, '--out', input], { env })
    expect(self.code).toBe(2)
    expect(self.stderr).toContain('is the input itself')
    expect(await readFile(input, 'utf8')).toBe(questions(2))

    const torn = outPath()
    await runCli(['batch', input, '--out', torn], { env })
    const whole = await readFile(torn, 'utf8')
    await truncate(torn, whole.length - 10)
    expect((await runCli(['batch', input, '--out', torn], { env })).code).toBe(0)
    expect(await readFile(torn, 'utf8')).toBe(whole)
  })

  it('stops on Ctrl-C with a valid file, says so, and goes on from there', async () => {
    server.fateOf = (key) => (Number(key.slice(2)) < 5 ? 'answer' : 'hang')
    const [input, out] = [await inputFile(questions(10)), outPath()]
    const run = startCli(['batch', input, '--out', out, '--json'], { env })
    await until(() => existsSync(out) && readFileSync(out, 'utf8').split('\n').length > 5, 'five answers')
    run.child.kill('SIGINT')
    const { code, stdout } = await run.ended
    expect(code).toBe(130)
    expect(JSON.parse(stdout)).toMatchObject({ total: 10, answered: 5, interrupted: true })
    expect(await linesIn(out)).toHaveLength(5)

    server.fateOf = () => 'answer'
    const again = await runCli(['batch', input, '--out', out], { env })
    expect(again.code).toBe(0)
    expect((await linesIn(out)).map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  })
})

describe('trouble', () => {
  it('writes lines that failed, exits 1, and asks them again in the next run', async () => {
    server.fateOf = (key) =>
      key === 'q/1' ? 'fail' : key === 'q/2' ? 'uncertain' : key === 'q/3' ? 'refuse' : 'answer'
    const [input, out] = [await inputFile(questions(5)), outPath()]
    const { code, stderr, stdout } = await runCli(['batch', input, '--out', out], { env })
    expect(code).toBe(1)
    expect(stdout).toBe('')
    expect(stderr).toContain('2 of 5 lines answered (0 replayed, 2 new), 3 failed')
    expect(stderr).toContain('1 provider_rejected (line 2): No.')
    expect(stderr).toContain('1 invalid_request (line 4): No provider is on')
    expect(stderr).toContain('askonce list --uncertain')
    expect(stderr).toContain('Run the same command again')
    expect((await linesIn(out)).map(({ state }) => state)).toEqual([
      'succeeded',
      'failed',
      'uncertain',
      'refused',
      'succeeded',
    ])

    server.fateOf = () => 'answer'
    const again = await runCli(['batch', input, '--out', out, '--json'], { env })
    expect(summaryOf(again.stdout)).toMatchObject({ kept: 2, new: 2, failed: 1, uncertain: 1 })
    expect(server.calls('q/2')).toBe(1)
    expect((await linesIn(out)).map(({ state }) => state)).toEqual([
      'succeeded',
      'succeeded',
      'uncertain',
      'succeeded',
      'succeeded',
    ])
  })

  it('says at once that no server is there, and makes no file', async () => {
    await server.pause()
    const [input, out] = [await inputFile(questions(1)), outPath()]
    const { code, stderr } = await runCli(['batch', input, '--out', out], { env })
    await server.resume()
    expect(code).toBe(3)
    expect(stderr).toContain(`no server answers at ${server.url}`)
    expect(stderr).toContain('npm start')
    expect(existsSync(out)).toBe(false)
  })

  it('waits for a server that goes away and comes back', async () => {
    server.latencyMs = 100
    const [input, out] = [await inputFile(questions(40)), outPath()]
    const run = startCli(['batch', input, '--out', out, '--in-flight', '8', '--json'], { env })
    await until(() => existsSync(out) && readFileSync(out, 'utf8').split('\n').length > 8, 'the first answers')
    await server.pause()
    const before = readFileSync(out, 'utf8').length
    await new Promise((resolve) => setTimeout(resolve, 500))
    expect(run.child.exitCode).toBeNull()
    await server.resume()
    const { code, stdout } = await run.ended
    expect(code).toBe(0)
    expect(summaryOf(stdout)).toMatchObject({ total: 40, answered: 40 })
    expect(readFileSync(out, 'utf8').length).toBeGreaterThan(before)
    for (let number = 0; number < 40; number += 1) expect(server.calls(`q/${number}`)).toBe(1)
  })

  it('gives up after --patience, says how to go on, and keeps what it has', async () => {
    server.fateOf = (key) => (key === 'q/0' ? 'answer' : 'hang')
    const [input, out] = [await inputFile(questions(2)), outPath()]
    const run = startCli(['batch', input, '--out', out, '--patience', '1'], { env })
    await until(() => existsSync(out) && readFileSync(out, 'utf8').includes('\n'), 'the first answer')
    await server.pause()
    const { code, stderr } = await run.ended
    await server.resume()
    expect(code).toBe(3)
    expect(stderr).toContain('1 of 2 lines done; run the same command again to continue')
    expect(await linesIn(out)).toHaveLength(1)
  })

  it('comes back after a 503, no sooner than Retry-After says', async () => {
    const [input, out] = [await inputFile(questions(3)), outPath()]
    server.unavailable = 2
    const startedMs = Date.now()
    expect((await runCli(['batch', input, '--out', out], { env })).code).toBe(0)
    expect(Date.now() - startedMs).toBeGreaterThan(2000)
    expect(server.calls('q/0')).toBe(1)
  })

  it('tells a wrong key before anything is submitted', async () => {
    const [input, out] = [await inputFile(questions(1)), outPath()]
    const { code, stderr } = await runCli(['batch', input, '--out', out], { env: { ...env, ASKONCE_API_KEY: 'wrong' } })
    expect(code).toBe(1)
    expect(stderr).toContain('unauthorized')
    expect(stderr).toContain('ASKONCE_API_KEY')
    expect(server.bulks).toEqual([])
  })
})

describe('pipes', () => {
  it('reads stdin, writes stdout, and keeps both free of anything else', async () => {
    const { code, stdout, stderr } = await runCli(['batch', '-', '--out', '-', '--json'], { env, input: questions(20) })
    expect(code).toBe(0)
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Line)
    expect(lines.map(({ index }) => index).toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 20 }, (_, index) => index),
    )
    expect(JSON.parse(stderr)).toMatchObject({ total: 20, answered: 20 })
    expect(stderr).not.toContain('\r')
  })

  it('ends quietly when the reader goes away', async () => {
    const input = await inputFile(questions(200))
    server.answerOf = (key) => JSON.stringify({ id: key, text: 'x'.repeat(20_000) })
    const { code, stdout, stderr } = await runShell(`$ASKONCE batch ${input} --out - --quiet | head -n 1 | wc -l`, {
      env,
    })
    expect(stdout.trim()).toBe('1')
    expect(stderr).toBe('')
    expect(code).toBe(141)
  })

  it('writes through a file name that is a pipe', async () => {
    const input = await inputFile(questions(3))
    const { code, stdout } = await runShell(`$ASKONCE batch <(cat ${input}) --out >(sort | wc -l) --quiet; wait`, {
      env,
    })
    expect(code).toBe(0)
    expect(stdout.trim()).toBe('3')
  })
})
