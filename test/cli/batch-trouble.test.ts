import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { acquireOwner } from '@askonce/embedded'
import { describe, expect, it } from 'vitest'
import { linesIn, questions, summaryOf, useBench } from './batch-bench.ts'
import { runCli, startCli, until } from './run-cli.ts'

const bench = useBench()

describe('trouble', () => {
  it('writes lines that failed, exits 1, and asks them again in the next run', async () => {
    bench.server.fateOf = (key) =>
      key === 'q/1' ? 'fail' : key === 'q/2' ? 'uncertain' : key === 'q/3' ? 'refuse' : 'answer'
    const [input, out] = [await bench.inputFile(questions(5)), bench.outPath()]
    const { code, stderr, stdout } = await runCli(['batch', input, '--out', out], { env: bench.env })
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

    bench.server.fateOf = () => 'answer'
    const again = await runCli(['batch', input, '--out', out, '--json'], { env: bench.env })
    expect(summaryOf(again.stdout)).toMatchObject({ kept: 2, new: 2, failed: 1, uncertain: 1 })
    expect(bench.server.calls('q/2')).toBe(1)
    expect((await linesIn(out)).map(({ state }) => state)).toEqual([
      'succeeded',
      'succeeded',
      'uncertain',
      'succeeded',
      'succeeded',
    ])
  })

  it('without patience says at once that no server is there, and makes no file', async () => {
    await bench.server.pause()
    const [input, out] = [await bench.inputFile(questions(1)), bench.outPath()]
    const { code, stderr } = await runCli(['batch', input, '--out', out, '--patience', '0'], { env: bench.env })
    await bench.server.resume()
    expect(code).toBe(3)
    expect(stderr).toContain(`no server answers at ${bench.server.url}`)
    expect(stderr).toContain('npm start')
    expect(existsSync(out)).toBe(false)
  })

  it('waits for a server that is not there yet, and says so', async () => {
    await bench.server.pause()
    const [input, out] = [await bench.inputFile(questions(2)), bench.outPath()]
    const run = startCli(['batch', input, '--out', out], { env: bench.env })
    await until(() => run.output().includes(`no server answers at ${bench.server.url}`), 'the reason')
    expect(run.output()).toContain('waiting for it, 600 seconds at most (--patience)')
    await bench.server.resume()
    expect((await run.ended).code).toBe(0)
    expect(await linesIn(out)).toHaveLength(2)
  })

  it('waits for a server that has not written its address yet', async () => {
    const [input, out] = [await bench.inputFile(questions(2)), bench.outPath()]
    const dataDir = bench.scratch.path('starting')
    const run = startCli(['batch', input, '--out', out], { env: { ASKONCE_DATA_DIR: dataDir } })
    await until(() => run.output().includes('no server found'), 'the reason')
    mkdirSync(dataDir)
    const owner = await acquireOwner({ dataDir })
    owner.update({ address: bench.server.url, apiKey: bench.server.apiKey })
    const { code, stderr } = await run.ended
    await owner.release()
    expect([code, stderr]).toEqual([0, expect.stringContaining('2 of 2 lines answered')])
  })

  it('without a key says what is the matter: nobody there, or a key is asked for', async () => {
    const [input, out] = [await bench.inputFile(questions(1)), bench.outPath()]
    const { ASKONCE_API_KEY: _none, ...keyless } = bench.env
    const args = ['batch', input, '--out', out, '--patience', '0']
    const asked = await runCli(args, { env: keyless })
    expect([asked.code, asked.stderr]).toEqual([2, expect.stringContaining('ASKONCE_API_KEY is not set')])
    await bench.server.pause()
    for (const command of [args, ['list'], ['get', 'some/key']]) {
      const { code, stderr } = await runCli(command, { env: keyless })
      expect([code, stderr]).toEqual([3, expect.stringContaining(`no server answers at ${bench.server.url}`)])
      expect(stderr).not.toContain('key')
    }
    await bench.server.resume()
  })

  it('waits for a server that goes away and comes back', async () => {
    bench.server.latencyMs = 100
    const [input, out] = [await bench.inputFile(questions(40)), bench.outPath()]
    const run = startCli(['batch', input, '--out', out, '--in-flight', '8', '--json'], { env: bench.env })
    await until(() => existsSync(out) && readFileSync(out, 'utf8').split('\n').length > 8, 'the first answers')
    await bench.server.pause()
    const before = readFileSync(out, 'utf8').length
    await new Promise((resolve) => setTimeout(resolve, 500))
    expect(run.child.exitCode).toBeNull()
    await bench.server.resume()
    const { code, stdout } = await run.ended
    expect(code).toBe(0)
    expect(summaryOf(stdout)).toMatchObject({ total: 40, answered: 40 })
    expect(readFileSync(out, 'utf8').length).toBeGreaterThan(before)
    for (let number = 0; number < 40; number += 1) expect(bench.server.calls(`q/${number}`)).toBe(1)
  })

  it('gives up after --patience, says how to go on, and keeps what it has', async () => {
    bench.server.fateOf = (key) => (key === 'q/0' ? 'answer' : 'hang')
    const [input, out] = [await bench.inputFile(questions(2)), bench.outPath()]
    const run = startCli(['batch', input, '--out', out, '--patience', '1'], { env: bench.env })
    await until(() => existsSync(out) && readFileSync(out, 'utf8').includes('\n'), 'the first answer')
    await bench.server.pause()
    const { code, stderr } = await run.ended
    await bench.server.resume()
    expect(code).toBe(3)
    expect(stderr).toContain('1 of 2 lines done; run the same command again to continue')
    expect(await linesIn(out)).toHaveLength(1)
  })

  it('comes back after a 503, no sooner than Retry-After says', async () => {
    const [input, out] = [await bench.inputFile(questions(3)), bench.outPath()]
    bench.server.unavailable = 2
    const startedMs = Date.now()
    expect((await runCli(['batch', input, '--out', out], { env: bench.env })).code).toBe(0)
    expect(Date.now() - startedMs).toBeGreaterThan(2000)
    expect(bench.server.calls('q/0')).toBe(1)
  })

  it('tells a wrong key before anything is submitted', async () => {
    const [input, out] = [await bench.inputFile(questions(1)), bench.outPath()]
    const { code, stderr } = await runCli(['batch', input, '--out', out], {
      env: { ...bench.env, ASKONCE_API_KEY: 'wrong' },
    })
    expect(code).toBe(1)
    expect(stderr).toContain('unauthorized')
    expect(stderr).toContain('ASKONCE_API_KEY')
    expect(bench.server.bulks).toEqual([])
  })
})
