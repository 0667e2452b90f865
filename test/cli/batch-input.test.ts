import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { linesIn, question, questions, summaryOf, useBench } from './batch-bench.ts'
import { exactAnswer } from './fake-server.ts'
import { runCli } from './run-cli.ts'

const bench = useBench()

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
    const [input, out] = [await bench.inputFile(text), bench.outPath()]
    const { code, stderr } = await runCli(['batch', input, '--out', out, '--model', 'simulated/large'], {
      env: bench.env,
    })
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
    const sent = [...bench.server.jobs.values()].map(({ operation, request }) => ({
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
    bench.server.answerOf = (key) =>
      key === 'q/1'
        ? '{\n  "id": 1.0,\n  "text": "two\\n  lines: \\u00e9",\n  "big": 12345678901234567890\n}'
        : exactAnswer(key)
    const [input, out] = [await bench.inputFile(questions(2)), bench.outPath()]
    expect((await runCli(['batch', input, '--out', out], { env: bench.env })).code).toBe(0)
    const [first = '', second = ''] = (await readFile(out, 'utf8')).split('\n')
    expect(first.endsWith(`"response":${exactAnswer('q/0')}}`)).toBe(true)
    expect(second.endsWith('"response":{"id":1.0,"text":"two\\n  lines: \\u00e9","big":12345678901234567890}}')).toBe(
      true,
    )
  })

  it('gives equal lines one job and each its own line', async () => {
    const same = '{"prompt":"Same","model":"simulated/small"}\n'
    const [input, out] = [await bench.inputFile(same + question(1) + '\n' + same + question(1) + '\n'), bench.outPath()]
    const { stdout } = await runCli(['batch', input, '--out', out, '--json'], { env: bench.env })
    expect(summaryOf(stdout)).toMatchObject({ total: 4, answered: 4, new: 4, paid_attempts: 2 })
    expect(bench.server.jobs.size).toBe(2)
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
    const [input, out] = [await bench.inputFile(bad.join('\n')), bench.outPath()]
    const { code, stderr } = await runCli(['batch', input, '--out', out], { env: bench.env })
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
    expect(bench.server.requests).toEqual([])
    expect(existsSync(out)).toBe(false)
  })

  it.each(['', '\n\n'])('refuses an input without a request: %j', async (text) => {
    const [input, out] = [await bench.inputFile(text), bench.outPath()]
    const { code, stderr } = await runCli(['batch', input, '--out', out], { env: bench.env })
    expect(code).toBe(2)
    expect(stderr).toContain(`askonce: ${input} holds no request`)
    const piped = await runCli(['batch', '-', '--out', out], { env: bench.env, input: text })
    expect([piped.code, piped.stderr]).toEqual([2, expect.stringContaining('stdin holds no request')])
    expect(existsSync(out)).toBe(false)
  })

  it('gives every line the options of the command, which a line may overrule', async () => {
    const own = { priority: 1, on_uncertain: 'fail', metadata: { run: 'own', line: '2' } }
    const lines = [
      { key: 'a', prompt: 'A', model: 'simulated/small' },
      { key: 'b', prompt: 'B', model: 'simulated/small', ...own },
      { custom_id: 'c', url: '/v1/embeddings', body: { model: 'simulated/small', input: 'c' }, ttl_seconds: 5 },
    ]
    const input = await bench.inputFile(lines.map((line) => JSON.stringify(line)).join('\n'))
    const delivery = ['--on-uncertain', 'hold', '--max-paid-attempts', '1', '--ttl', '2d', '--priority', '9']
    const notes = ['--metadata', 'run=7', '--metadata', 'of=night']
    const { code } = await runCli(['batch', input, '-o', bench.outPath(), ...delivery, ...notes], { env: bench.env })
    expect(code).toBe(0)
    const common = { on_uncertain: 'hold', max_paid_attempts: 1, ttl_seconds: 172_800, priority: 9 }
    const sent = bench.server.items.map(({ key, operation: _o, request: _r, ...options }) => [key, options])
    expect(Object.fromEntries(sent)).toEqual({
      a: { ...common, metadata: { run: '7', of: 'night' } },
      b: { ...common, ...own, metadata: { run: 'own', of: 'night', line: '2' } },
      c: { ...common, ttl_seconds: 5, metadata: { run: '7', of: 'night' } },
    })
  })

  it('refuses a line whose metadata is too much together with that of the command', async () => {
    const metadata = Object.fromEntries(Array.from({ length: 16 }, (_, n) => [`m${n}`, 'x']))
    const input = await bench.inputFile(JSON.stringify({ key: 'a', prompt: 'A', model: 'm', metadata }))
    const args = ['batch', input, '-o', bench.outPath(), '--metadata', 'one=more']
    const { code, stderr } = await runCli(args, { env: bench.env })
    expect([code, stderr]).toEqual([2, expect.stringContaining('line 1 /metadata: expected an object of up to 16')])
  })
})
