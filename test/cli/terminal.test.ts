import { existsSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { startFakeServer } from './fake-server.ts'
import type { FakeServer } from './fake-state.ts'
import { makeScratch, runCli, startInTerminal, until, type Ended, type Scratch } from './run-cli.ts'

let server: FakeServer
let scratch: Scratch
let env: Record<string, string>
let input: string

beforeAll(async () => {
  scratch = await makeScratch()
  input = scratch.path('input.jsonl')
  const lines = Array.from({ length: 30 }, (_, index) =>
    JSON.stringify({ key: `q/${index}`, prompt: 'Hm?', model: 'm' }),
  )
  await writeFile(input, lines.join('\n'))
})
afterAll(() => scratch.remove())

beforeEach(async () => {
  server = await startFakeServer()
  env = { ASKONCE_URL: server.url, ASKONCE_API_KEY: server.apiKey, ASKONCE_DATA_DIR: scratch.path('data') }
  return () => server.close()
})

/** What was drawn in the progress line, in order: each redraw begins with a carriage return. */
function frames({ stdout }: Ended): string[] {
  const [progress = ''] = stdout.split('\r\n')
  return progress.split('\r').filter((frame) => frame.trim() !== '')
}

describe('the progress line', () => {
  it('is redrawn in place on 80 columns, and ends complete', async () => {
    server.latencyMs = 600
    const ended = await startInTerminal(80, ['batch', input, '-o', scratch.path('a.jsonl'), '--in-flight', '10'], {
      env,
    }).ended
    expect(ended.code).toBe(0)
    const drawn = frames(ended)
    expect(drawn.length).toBeGreaterThan(5)
    // Ten a second at most: 30 lines, ten at a time, of 0.6 s each, and some time to spare.
    expect(drawn.every((frame) => frame.length < 80)).toBe(true)
    expect(drawn[0]).toMatch(/^\[> +\] {2}0% 0\/30 {2}ETA --:-- {2}0 replayed 0 new 0 failed/)
    expect(drawn.at(-1)).toMatch(/100% 30\/30 .*0 replayed 30 new 0 failed {2}simulated/)
    expect(ended.stdout).toContain('30 of 30 lines answered')
    // Nothing that would have to be undone: the cursor is never hidden.
    expect(ended.stdout).not.toContain('\u001b[?25l')
  })

  it('fits 40 and 12 columns', async () => {
    for (const columns of [40, 12]) {
      const out = scratch.path(`narrow-${columns}.jsonl`)
      const ended = await startInTerminal(columns, ['batch', input, '--out', out], { env }).ended
      expect(ended.code).toBe(0)
      const drawn = frames(ended)
      expect(drawn.every((frame) => frame.length < columns)).toBe(true)
      expect(drawn.at(-1)).toContain(columns === 40 ? '100% 30/30' : '100%')
    }
  })

  it('says real money plainly, and what a job waits for', async () => {
    server.simulated = false
    server.waitingFor = { kind: 'lane', name: 'openai', reason: 'The provider refused the credentials', until: null }
    server.fateOf = (key) => (key === 'q/7' ? 'hang' : 'answer')
    const out = scratch.path('money.jsonl')
    const run = startInTerminal(120, ['batch', input, '--out', out], { env })
    await until(() => run.output().includes('lane openai: The provider refused the credentials'), 'the reason', 40_000)
    server.waitingFor = null
    server.fateOf = () => 'answer'
    const { stdout } = await run.ended
    expect(stdout).toContain('askonce lanes resume openai')
    expect(stdout).toMatch(/30 new 0 failed {2}\$7\.50/)
    expect(stdout).toContain('31 calls, $7.50')
  })

  it('says that the server is away, and ends on Ctrl-C with 130', async () => {
    server.fateOf = (key) => (key === 'q/0' ? 'answer' : 'hang')
    const out = scratch.path('interrupted.jsonl')
    const run = startInTerminal(80, ['batch', input, '--out', out], { env })
    await until(() => existsSync(out) && readFileSync(out, 'utf8').includes('\n'), 'the first answer')
    await server.pause()
    await until(() => run.output().includes('waiting for the server'), 'the trouble')
    // The terminal makes the signal of it.
    run.child.stdin.write('\u0003')
    const { code, stdout } = await run.ended
    await server.resume()
    expect(code).toBe(130)
    expect(stdout).toContain('Interrupted: 1 of 30 lines done')
  })

  it('is a plain line elsewhere, and nothing with --quiet', async () => {
    const plain = await runCli(['batch', input, '--out', scratch.path('plain.jsonl')], { env })
    expect(plain.stderr).not.toContain('\r')
    expect(plain.stderr).toContain('30 of 30 lines answered')
    const quiet = await runCli(['batch', input, '--out', scratch.path('quiet.jsonl'), '--quiet'], { env })
    expect(quiet).toMatchObject({ code: 0, stdout: '', stderr: '' })
  })
})

describe('colours', () => {
  it('are for terminals, and not with NO_COLOR', async () => {
    await runCli(['submit', 'k', '-m', 'm', '-p', 'x', '--wait', '5'], { env })
    const coloured = await startInTerminal(100, ['get', '--key', 'k'], { env }).ended
    expect(coloured.stdout).toContain('\u001b[32msucceeded')
    const plain = await startInTerminal(100, ['get', '--key', 'k'], { env: { ...env, NO_COLOR: '1' } }).ended
    expect(plain.stdout).not.toContain('\u001b')
    expect((await runCli(['get', '--key', 'k'], { env })).stdout).not.toContain('\u001b')
  })

  it('never come from an answer', async () => {
    server.answerOf = () => JSON.stringify({ choices: [{ message: { content: '\u001b]0;owned\u0007\u001b[31mred' } }] })
    const { stdout } = await startInTerminal(100, ['submit', 'k', '-m', 'm', '-p', 'x', '--wait', '5'], { env }).ended
    expect(stdout).not.toContain('\u001b[31m')
    expect(stdout).not.toContain('\u0007')
    expect(stdout).toContain('red')
  })
})
