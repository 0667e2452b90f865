import { basename } from 'node:path'
import type { Guard } from './guard.ts'

/** A guard that was taken away, and what its test said. */
export interface Broken {
  guard: Guard
  caught: boolean
  /** Full names of the tests that failed. */
  tests: readonly string[]
  invalid: string | null
}

/** The table of a run, by promise and in the order of the list. */
export function renderTable(
  rows: readonly Broken[],
  run: { command: string; commit: string; minutes: number },
): string {
  const caught = rows.filter((row) => row.caught).length
  const lines = rows
    .toSorted((a, b) => a.guard.promise - b.guard.promise)
    .map(
      ({ guard, ...row }) =>
        `| ${guard.promise} | ${cell(guard.name)} | ${basename(guard.file)} | ${row.caught ? whatCaught(guard, row.tests) : '**nothing**'} |`,
    )
  return `Command: \`${run.command}\`, Askonce ${run.commit}: ${caught} of ${rows.length} guards were caught, in ${run.minutes.toFixed(0)} minutes.

| promise | without its guard | in | caught by |
|---|---|---|---|
${lines.join('\n')}`
}

function whatCaught({ test }: Guard, [first = '', ...more]: readonly string[]): string {
  const others = more.length === 0 ? '' : `, and ${more.length} more`
  return `${basename(test)}: ${cell(first)}${others}`
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|')
}
