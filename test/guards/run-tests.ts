import { spawn } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

/** What became of a run of tests. */
export interface TestRun {
  passed: number
  /** Full names of the tests that failed on their own, in order. */
  failed: readonly string[]
  /** Why the run says nothing: a file did not load, or what was run is no valid program. Null: it does. */
  invalid: string | null
}

interface Result {
  testResults: {
    name: string
    status: string
    message: string
    assertionResults: { fullName: string; status: string; failureMessages: string[] }[]
  }[]
}

/** Longer than any test may take with its hooks; a run beyond it says nothing. */
const tooLongMs = 8 * 60_000

/**
 * Failures that any nonsense in place of the guard would cause. A test that fails with one has not missed the guard: the
 * program could not run.
 */
const nonsense =
  /syntax error at or near|(?:column|relation|operator|function) .* does not exist|could not determine data type|SyntaxError|ReferenceError|Transform failed|Cannot find (?:module|package)/

/** Runs test files in a copy of the checkout; `only` is part of full names of tests. */
export async function runTests(
  root: string,
  files: readonly string[],
  only: string | undefined,
  signal: AbortSignal,
): Promise<TestRun> {
  const out = join(root, 'guards-run.json')
  rmSync(out, { force: true })
  const args = ['node_modules/vitest/vitest.mjs', 'run', ...files, '--reporter=json', `--outputFile=${out}`]
  const child = spawn(process.execPath, only === undefined ? args : [...args, '-t', only], {
    cwd: root,
    stdio: 'ignore',
  })
  const stop = (): void => void child.kill('SIGTERM')
  const timer = setTimeout(stop, tooLongMs)
  signal.addEventListener('abort', stop, { once: true })
  if (signal.aborted) stop()
  await new Promise((resolve) => child.once('close', resolve))
  clearTimeout(timer)
  signal.removeEventListener('abort', stop)
  if (!existsSync(out)) return { passed: 0, failed: [], invalid: 'the run did not end' }
  return judge(JSON.parse(readFileSync(out, 'utf8')) as Result)
}

function judge({ testResults }: Result): TestRun {
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults)
  const passed = tests.filter(({ status }) => status === 'passed').length
  const failed = tests.filter(({ status }) => status === 'failed')
  const meant = failed.find(({ failureMessages }) => failureMessages.some((message) => nonsense.test(message)))
  const broken = testResults.find(({ status, assertionResults }) => {
    // A file that failed without a failed test of its own: it did not load, or its preparation or its end failed.
    return status === 'failed' && !assertionResults.some((test) => test.status === 'failed')
  })
  const reason = meant?.failureMessages[0] ?? broken?.message ?? (tests.length === 0 ? 'no test was found' : null)
  return {
    passed,
    failed: failed.map(({ fullName }) => fullName),
    invalid: reason === null ? null : (reason.split('\n')[0] ?? reason),
  }
}
