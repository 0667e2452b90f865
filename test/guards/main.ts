import { join } from 'node:path'
import { describeCommit, writePage } from '../chaos/report.ts'
import { copyCheckout, type Copy } from './copy.ts'
import type { Guard } from './guard.ts'
import { guards } from './guards.ts'
import { commandOf, readOptions, usage, type GuardOptions } from './options.ts'
import { renderTable, type Broken } from './report.ts'
import { runTests } from './run-tests.ts'

/** Copies that are broken at the same time: as many as test files run side by side. */
const copiesAtOnce = 2
const checkout = join(import.meta.dirname, '../..')

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

function chosen({ only }: GuardOptions): Guard[] {
  return guards.filter(({ name, file, test }) => only === null || [name, file, test].some((text) => only.test(text)))
}

/** Runs `work` for each item, one at a time in each copy; stops at the first rejection or abort. */
async function inCopies<T>(
  copies: readonly Copy[],
  items: readonly T[],
  signal: AbortSignal,
  work: (copy: Copy, item: T) => Promise<void>,
): Promise<void> {
  const left = [...items]
  await Promise.all(
    copies.map(async (copy) => {
      for (let item = left.shift(); item !== undefined && !signal.aborted; item = left.shift()) await work(copy, item)
    }),
  )
}

/** Of the test that a guard names. */
function testOf({ test, only }: Guard): string {
  return `${test} ${only ?? ''}`.trim()
}

/** The tests of the guards as they are, each once. Returns what is wrong with those that do not pass. */
async function runUnbroken(
  copies: readonly Copy[],
  those: readonly Guard[],
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const wrong = new Map<string, string>()
  const tests = new Map(those.map((guard) => [testOf(guard), guard]))
  await inCopies(copies, [...tests], signal, async ({ root }, [name, { test, only }]) => {
    const { passed, failed, invalid } = await runTests(root, [test], only, signal)
    const problem = invalid ?? failed[0] ?? (passed === 0 ? 'no test was run' : null)
    if (signal.aborted) return
    say(`unbroken: ${name}: ${problem === null ? `${passed} passed` : `FAILED: ${problem}`}`)
    if (problem !== null) wrong.set(name, problem)
  })
  return wrong
}

async function breakAll(
  copies: readonly Copy[],
  those: readonly Guard[],
  wrong: ReadonlyMap<string, string>,
  signal: AbortSignal,
): Promise<Map<Guard, Broken>> {
  const results = new Map<Guard, Broken>()
  await inCopies(copies, those, signal, async (copy, guard) => {
    const problem = wrong.get(testOf(guard))
    const run =
      problem === undefined
        ? await copy.without(guard, () => runTests(copy.root, [guard.test], guard.only, signal))
        : { failed: [], invalid: `its test fails with the guard in place: ${problem}` }
    if (signal.aborted) return
    const caught = run.invalid === null && run.failed.length > 0
    results.set(guard, { guard, caught, tests: run.failed, invalid: run.invalid })
    const what = run.invalid === null ? 'NOT CAUGHT' : `NOT CAUGHT, the run says nothing: ${run.invalid}`
    say(`${results.size}/${those.length} ${guard.name}: ${caught ? `caught by ${run.failed[0] ?? ''}` : what}`)
  })
  return results
}

async function breakChosen(options: GuardOptions, those: readonly Guard[], signal: AbortSignal): Promise<number> {
  const startedAt = performance.now()
  const commit = describeCommit()
  say(`${those.length} guards: copying the checkout, running their tests unbroken`)
  const copies: Copy[] = []
  try {
    while (copies.length < Math.min(copiesAtOnce, those.length)) copies.push(copyCheckout(checkout))
    const wrong = await runUnbroken(copies, those, signal)
    if (signal.aborted) return 130
    const results = await breakAll(copies, those, wrong, signal)
    if (signal.aborted) return 130
    const rows = those.flatMap((guard) => results.get(guard) ?? [])
    const missed = rows.filter(({ caught }) => !caught)
    const minutes = (performance.now() - startedAt) / 60_000
    if (options.report !== null)
      writePage(options.report, 'guards', renderTable(rows, { command: commandOf(options), commit, minutes }))
    say(`${rows.length - missed.length} of ${rows.length} guards were caught, in ${minutes.toFixed(1)} minutes`)
    for (const { guard } of missed) say(`not caught: ${guard.name}`)
    return missed.length === 0 ? 0 : 1
  } finally {
    for (const copy of copies) copy.remove()
  }
}

async function main(): Promise<number> {
  let options: GuardOptions | 'help'
  try {
    options = readOptions(process.argv.slice(2))
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage}`)
    return 2
  }
  if (options === 'help') {
    say(usage)
    return 0
  }
  const those = chosen(options)
  if (those.length === 0) {
    say('no guard matches')
    return 2
  }
  if (options.list) {
    for (const { name, promise, file, test } of those) say(`${promise}  ${name}  (${file}; ${test})`)
    return 0
  }
  const interrupt = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupt.abort())
  return breakChosen(options, those, interrupt.signal)
}

process.exitCode = await main()
