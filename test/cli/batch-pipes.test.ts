import { describe, expect, it } from 'vitest'
import { questions, useBench, type Line } from './batch-bench.ts'
import { runCli, runShell } from './run-cli.ts'

const bench = useBench()

describe('pipes', () => {
  it('reads stdin, writes stdout, and keeps both free of anything else', async () => {
    const { code, stdout, stderr } = await runCli(['batch', '-', '--out', '-', '--json'], {
      env: bench.env,
      input: questions(20),
    })
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
    const input = await bench.inputFile(questions(200))
    bench.server.answerOf = (key) => JSON.stringify({ id: key, text: 'x'.repeat(20_000) })
    const { code, stdout, stderr } = await runShell(`$ASKONCE batch ${input} --out - --quiet | head -n 1 | wc -l`, {
      env: bench.env,
    })
    expect(stdout.trim()).toBe('1')
    expect(stderr).toBe('')
    expect(code).toBe(141)
  })

  it('writes through a file name that is a pipe', async () => {
    const input = await bench.inputFile(questions(3))
    const { code, stdout } = await runShell(`$ASKONCE batch <(cat ${input}) --out >(sort | wc -l) --quiet; wait`, {
      env: bench.env,
    })
    expect(code).toBe(0)
    expect(stdout.trim()).toBe('3')
  })
})
