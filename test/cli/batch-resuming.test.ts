import { existsSync, readFileSync } from 'node:fs'
import { appendFile, readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { linesIn, questions, summaryOf, useBench, type Line } from './batch-bench.ts'
import { runCli, startCli, until } from './run-cli.ts'

const bench = useBench()

describe('resuming', () => {
  it('ends with the same file after kill -9, and submits nothing again that it has', async () => {
    bench.server.latencyMs = 150
    const input = await bench.inputFile(questions(60))
    const [straight, killed] = [bench.outPath(), bench.outPath()]
    await runCli(['batch', input, '--out', straight], { env: bench.env })
    await bench.replaceServer()
    bench.server.latencyMs = 150
    const run = startCli(['batch', input, '--out', killed, '--in-flight', '10'], { env: bench.env })
    await until(() => existsSync(killed) && readFileSync(killed, 'utf8').split('\n').length > 15, 'fifteen answers')
    run.child.kill('SIGKILL')
    expect((await run.ended).signal).toBe('SIGKILL')
    // As a crash in the middle of a write leaves it.
    await appendFile(killed, '{"index":59,"key":"q/59","fing')
    const kept = (await readFile(killed, 'utf8')).split('\n').slice(0, -1)
    const keptKeys = new Set(kept.map((line) => (JSON.parse(line) as Line).key))
    expect(kept.length).toBeLessThan(60)
    bench.server.bulks.length = 0

    const again = await runCli(['batch', input, '--out', killed, '--json'], { env: bench.env })
    expect(again.code).toBe(0)
    expect(summaryOf(again.stdout)).toMatchObject({ total: 60, answered: 60, kept: kept.length, failed: 0 })
    expect(await readFile(killed, 'utf8')).toBe(await readFile(straight, 'utf8'))
    expect(bench.server.bulks.flat().filter((key) => keptKeys.has(key))).toEqual([])
    for (let number = 0; number < 60; number += 1) expect(bench.server.calls(`q/${number}`)).toBe(1)
    expect((await readdir(bench.scratch.path('.'))).filter((name) => name.endsWith('.tmp'))).toEqual([])
  })

  it('puts a complete file in order without asking the server', async () => {
    const [input, out] = [await bench.inputFile(questions(5)), bench.outPath()]
    await runCli(['batch', input, '--out', out], { env: bench.env })
    const ordered = await readFile(out, 'utf8')
    const shuffled = ordered.trimEnd().split('\n').toReversed().join('\n')
    await writeFile(out, `${shuffled}\n`)
    await bench.server.pause()
    const { code, stderr } = await runCli(['batch', input, '--out', out], { env: bench.env })
    await bench.server.resume()
    expect(code).toBe(0)
    expect(stderr).toContain(`5 were in ${out} already`)
    expect(await readFile(out, 'utf8')).toBe(ordered)
  })

  it('asks a line again that the simulator once answered in the name of a real model', async () => {
    const [input, out] = [await bench.inputFile(questions(2)), bench.outPath()]
    await runCli(['batch', input, '--out', out], { env: bench.env })
    const [first, second] = (await linesIn(out)) as unknown as Record<string, object>[]
    const made = { ...first, flags: ['simulated'], response: { ...first?.['response'], model: 'gpt-4.1' } }
    const small = { ...second, flags: ['simulated'], response: { ...second?.['response'], model: 'simulated/small' } }
    await writeFile(out, `${JSON.stringify(made)}\n${JSON.stringify(small)}\n`)
    bench.server.bulks.length = 0
    const { code, stderr } = await runCli(['batch', input, '--out', out], { env: bench.env })
    expect([code, bench.server.bulks.flat()]).toEqual([0, ['q/0']])
    expect(stderr).toContain(`1 were in ${out} already, 1 replayed`)
    expect(JSON.stringify(await linesIn(out))).not.toContain('gpt-4.1')
  })

  it('ends with what this run and this file in all have cost', async () => {
    const [input, out] = [await bench.inputFile(questions(4)), bench.outPath()]
    const first = await runCli(['batch', input, '--out', out], { env: bench.env })
    expect(first.stderr).toMatch(/^ {2}this run: +4 calls, .*, 0 replayed$/m)
    expect(first.stderr).toMatch(/^ {2}this file in all: 4 calls, /m)
    const again = await runCli(['batch', input, '--out', bench.outPath(), '--json'], { env: bench.env })
    expect(summaryOf(again.stdout)).toMatchObject({ replayed: 4, paid_attempts: 0, in_all: { paid_attempts: 4 } })
    const third = await runCli(['batch', input, '--out', out], { env: bench.env })
    expect(third.stderr).toMatch(/^ {2}this run: +0 calls, .*, 0 replayed$/m)
    expect(third.stderr).toContain(`without the 4 lines that were in ${out} already`)
  })

  it('asks a line again whose request was edited, although its key has an answer', async () => {
    const [input, out] = [await bench.inputFile(questions(2)), bench.outPath()]
    await runCli(['batch', input, '--out', out], { env: bench.env })
    await writeFile(input, questions(2).replace('Question 1', 'Another question'))
    const { code, stderr } = await runCli(['batch', input, '--out', out], { env: bench.env })
    expect(code).toBe(1)
    expect(stderr).toContain('1 idempotency_key_reused (line 2)')
    const lines = await linesIn(out)
    expect(lines[0]?.state).toBe('succeeded')
    expect(lines[1]).toMatchObject({ state: 'refused', error: { code: 'idempotency_key_reused' } })
  })

  it('cuts a torn line but touches no file that it did not write', async () => {
    const input = await bench.inputFile(questions(2))
    const notes = bench.outPath()
    for (const text of ['my notes\n', 'my notes', '{"answers":1}\n', 'key,value\na,b\n']) {
      await writeFile(notes, text)
      const { code, stderr } = await runCli(['batch', input, '--out', notes], { env: bench.env })
      expect(code).toBe(2)
      expect(stderr).toContain('holds no answer to this input')
      expect(await readFile(notes, 'utf8')).toBe(text)
    }
    const self = await runCli(['batch', input, '--out', input], { env: bench.env })
    expect(self.code).toBe(2)
    expect(self.stderr).toContain('is the input itself')
    expect(await readFile(input, 'utf8')).toBe(questions(2))

    const torn = bench.outPath()
    await runCli(['batch', input, '--out', torn], { env: bench.env })
    const whole = await readFile(torn, 'utf8')
    await truncate(torn, whole.length - 10)
    expect((await runCli(['batch', input, '--out', torn], { env: bench.env })).code).toBe(0)
    expect(await readFile(torn, 'utf8')).toBe(whole)
  })

  it('stops on Ctrl-C with a valid file, says so, and goes on from there', async () => {
    bench.server.fateOf = (key) => (Number(key.slice(2)) < 5 ? 'answer' : 'hang')
    const [input, out] = [await bench.inputFile(questions(10)), bench.outPath()]
    const run = startCli(['batch', input, '--out', out, '--json'], { env: bench.env })
    await until(() => existsSync(out) && readFileSync(out, 'utf8').split('\n').length > 5, 'five answers')
    run.child.kill('SIGINT')
    const { code, stdout } = await run.ended
    expect(code).toBe(130)
    expect(JSON.parse(stdout)).toMatchObject({ total: 10, answered: 5, interrupted: true })
    expect(await linesIn(out)).toHaveLength(5)

    bench.server.fateOf = () => 'answer'
    const again = await runCli(['batch', input, '--out', out], { env: bench.env })
    expect(again.code).toBe(0)
    expect((await linesIn(out)).map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  })
})
