import { afterAll, beforeAll, expect, it } from 'vitest'
import { makeScratch, runCli, type Scratch } from './run-cli.ts'

// test/unit/config-addresses.test.ts tries every mark in every address; here are whole processes, with servers that are away.
let scratch: Scratch
beforeAll(async () => {
  scratch = await makeScratch()
})
afterAll(() => scratch.remove())

const password = 'lefthalf#/?@:% middle&righthalf'

async function outputOf(args: string[], given: string): Promise<string> {
  const env = {
    ASKONCE_DATA_DIR: scratch.path('none'),
    DATABASE_URL: `postgres://someone:${given}@127.0.0.1:1/d`,
    DATABASE_DIRECT_URL: `postgres://someone:${given}@127.0.0.1:2/d`,
    REDIS_URL: `redis://:${given}@127.0.0.1:1/0`,
    PGPASSWORD: password,
  }
  const { stdout, stderr } = await runCli(args, { env })
  return stdout + stderr
}

it.each([
  ['encoded, where the servers are away', encodeURIComponent(password), /\[redacted\]@127\.0\.0\.1:2/],
  ['not encoded', password, /percent-encode/],
])('no command says a password: %s', { timeout: 120_000 }, async (_name, given, words) => {
  const outputs = await Promise.all(
    [['doctor'], ['doctor', '--json'], ['keys', 'list']].map((args) => outputOf(args, given)),
  )
  for (const output of outputs) expect(output).not.toMatch(/lefthalf|middle|righthalf/)
  expect(outputs[0]).toMatch(words)
})
