import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { checkArchitecture } from './check-architecture.ts'
import { checkDocs } from './check-docs.ts'
import { checkPackage } from './check-package.ts'
import { filesBelow, type GateResult } from './tree.ts'

const CODE = ['.ts', '.js', '.mjs', '.cjs']

export type Gate = {
  name: string
  /** Fewer files than this means that the gate has gone blind, whatever it says. */
  atLeast: number
  run: (root: string) => GateResult
}

/** Runs a tool of this repository in `root`; its output is the problems if it fails. */
function tool(root: string, command: readonly string[], count: (output: string) => number, there: number): GateResult {
  const [name = '', ...args] = command
  const program = name === 'node' ? process.execPath : join(root, 'node_modules/.bin', name)
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  })
  // Counts are read from it: oxlint colours its output wherever CI is set, NO_COLOR or not.
  const output = stripVTControlCharacters(`${stdout}${stderr}`)
  if (error) return { looked: 0, there, problems: [String(error)] }
  return {
    looked: count(output),
    there,
    problems: status === 0 ? [] : [output.trim() || `ended with status ${status}`],
  }
}

function counted(pattern: RegExp): (output: string) => number {
  return (output) => Number(pattern.exec(output)?.[1] ?? 0)
}

function format(root: string): GateResult {
  return tool(root, ['oxfmt', '--check'], counted(/on (\d+) files/), filesBelow(root, CODE).length)
}

function lint(root: string): GateResult {
  return tool(root, ['oxlint'], counted(/on (\d+) files/), filesBelow(root, CODE).length)
}

function types(root: string): GateResult {
  const there = filesBelow(root, ['.ts']).length
  const result = tool(root, ['tsc', '--noEmit', '--listFiles', '--pretty', 'false'], ownFiles, there)
  const problems = result.problems.map((output) => output.replaceAll(LISTED, '').trim())
  return { ...result, problems }
}

/** tsc lists absolute paths, those of libraries among them. */
const LISTED = /^\/.*\.[cm]?ts\n?/gm

function ownFiles(output: string): number {
  return (output.match(LISTED) ?? []).filter((path) => !path.includes('/node_modules/')).length
}

function deadCode(root: string): GateResult {
  const command = ['knip', '--no-progress', '--reporter', 'symbols', '--reporter', './scripts/knip-count.ts']
  return tool(root, command, counted(/knip looked at (\d+) files/), filesBelow(root, ['.ts']).length)
}

function schema(root: string): GateResult {
  const migrations = filesBelow(root, ['.sql']).filter((path) => path.startsWith('migrations/')).length
  const script = 'scripts/check-schema.ts'
  if (!existsSync(join(root, script))) return { looked: 0, there: migrations, problems: [`${script} is missing`] }
  return tool(root, ['node', '--import', 'tsx', script], counted(/(\d+) migrations?\b/), migrations)
}

export const gates: readonly Gate[] = [
  { name: 'format', atLeast: 80, run: format },
  { name: 'lint', atLeast: 80, run: lint },
  { name: 'types', atLeast: 80, run: types },
  { name: 'dead-code', atLeast: 80, run: deadCode },
  { name: 'architecture', atLeast: 80, run: checkArchitecture },
  { name: 'schema', atLeast: 1, run: schema },
  { name: 'docs', atLeast: 5, run: checkDocs },
  { name: 'package', atLeast: 20, run: checkPackage },
]

/** The gate's problems, and the problem of having looked at too little. */
export function runGate(gate: Gate, root: string): GateResult {
  let result: GateResult
  try {
    result = gate.run(root)
  } catch (error) {
    return { looked: 0, there: 0, problems: [`broke off: ${error instanceof Error ? error.message : String(error)}`] }
  }
  const { looked, there } = result
  const blind =
    looked < there || looked < gate.atLeast
      ? [`looked at ${looked} files: there are ${there}, and never fewer than ${gate.atLeast}`]
      : []
  return { ...result, problems: [...result.problems, ...blind] }
}
