import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, beforeEach, expect } from 'vitest'
import { startFakeServer } from './fake-server.ts'
import type { FakeServer } from './fake-state.ts'
import { makeScratch, type Scratch } from './run-cli.ts'

export interface Line {
  index: number
  key: string
  custom_id?: string
  id?: string
  state: string
  response?: unknown
  error?: { code: string; message: string }
}

export interface Summary {
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

export const question = (number: number): string =>
  JSON.stringify({
    key: `q/${number}`,
    operation: 'chat.completions',
    request: { model: 'simulated/small', messages: [{ role: 'user', content: `Question ${number}` }] },
  })

export const questions = (count: number): string =>
  Array.from({ length: count }, (_, index) => `${question(index)}\n`).join('')

/** What a test of batches has: a fake server of its own, the environment that leads to it, and files. */
export interface Bench {
  server: FakeServer
  env: Record<string, string>
  scratch: Scratch
  /** Writes a file of questions; returns its path. */
  inputFile(text: string): Promise<string>
  /** Where no file is yet. */
  outPath(): string
  /** Closes the server and starts another one, which knows nothing. */
  replaceServer(): Promise<void>
}

/** Registers what makes it before the tests of a file, and removes it after them. */
export function useBench(): Bench {
  let files = 0
  const start = async (): Promise<void> => {
    bench.server = await startFakeServer()
    const { url, apiKey } = bench.server
    bench.env = { ASKONCE_URL: url, ASKONCE_API_KEY: apiKey, ASKONCE_DATA_DIR: bench.scratch.path('data') }
  }
  const bench = {
    async inputFile(text: string): Promise<string> {
      files += 1
      const path = bench.scratch.path(`input-${files}.jsonl`)
      await writeFile(path, text)
      return path
    },
    outPath(): string {
      files += 1
      return bench.scratch.path(`out-${files}.jsonl`)
    },
    async replaceServer(): Promise<void> {
      await bench.server.close()
      await start()
    },
  } as Bench
  beforeAll(async () => {
    bench.scratch = await makeScratch()
  })
  afterAll(() => bench.scratch.remove())
  beforeEach(async () => {
    await start()
    return () => bench.server.close()
  })
  return bench
}

export async function linesIn(path: string): Promise<Line[]> {
  const text = await readFile(path, 'utf8')
  expect(text.endsWith('\n')).toBe(true)
  return text
    .slice(0, -1)
    .split('\n')
    .map((line) => JSON.parse(line) as Line)
}

export const summaryOf = (stdout: string): Summary => JSON.parse(stdout) as Summary
