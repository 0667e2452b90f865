import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describeCommit, describeMachine, writePage } from '../test/chaos/report.ts'
import { postgresSettings, startBench } from './bench.ts'
import { query } from './query.ts'
import { casesNamed } from './cases/index.ts'
import { installFolder } from '../scripts/install-folder.ts'
import { readOptions, usage, type BenchOptions } from './options.ts'
import { printProfiles } from './profile.ts'
import { runCase, type CaseRun } from './run.ts'
import { renderMarkdown, renderText } from './table.ts'
import { peerVersions } from './versions.ts'

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

interface Run {
  command: string
  startedAt: string
  minutes: number
  machine: string
  versions: Record<string, string>
  postgresSettings: Record<string, string>
  cases: readonly CaseRun[]
}

async function measure(options: BenchOptions, command: string, signal: AbortSignal): Promise<Run> {
  const startedAt = new Date().toISOString()
  const began = performance.now()
  const machine = describeMachine()
  say(`machine: ${machine}; the load generator and the servers run on the same cores`)
  const bench = await startBench(options, signal)
  const cases: CaseRun[] = []
  try {
    await installFolder(import.meta.dirname, signal)
    const [server] = await query<{ server_version: string }>(bench.postgres.url, 'show server_version')
    const versions = {
      Askonce: describeCommit(),
      Node: process.versions.node,
      PostgreSQL: server?.server_version.split(' ')[0] ?? 'unknown',
      ...peerVersions(),
    }
    for (const one of casesNamed(options.cases)) cases.push(await runCase(bench, one, say))
    const minutes = (performance.now() - began) / 60_000
    return { command, startedAt, minutes, machine, versions, postgresSettings, cases }
  } finally {
    await bench.stop()
  }
}

function report({ command, startedAt, minutes, machine, versions, cases }: Run): string {
  const names = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return `Command: \`${command}\`. ${startedAt.slice(0, 10)}, ${minutes.toFixed(0)} minutes, ${machine}; the load generator and the
servers ran on the same cores. ${names.join(', ')}.

${renderMarkdown(cases.map(({ summary }) => summary))}`
}

/** Which markers a report goes between: of a run of one case its own, if the page has them. */
function blockOf(path: string, { cases }: Run): string {
  const own = cases.length === 1 ? `bench-${cases[0]?.summary.name}` : 'bench'
  const page = existsSync(path) ? readFileSync(path, 'utf8') : ''
  return page.includes(`<!-- ${own}:begin -->`) ? own : 'bench'
}

async function main(args: readonly string[]): Promise<number> {
  let options: BenchOptions | 'help'
  try {
    options = readOptions(args)
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage}`)
    return 2
  }
  if (options === 'help') {
    say(usage)
    return 0
  }
  if (options.profile !== null) {
    options = { ...options, profile: resolve(options.profile) }
    mkdirSync(options.profile ?? '', { recursive: true })
  }
  const interrupt = new AbortController()
  let signalled = 0
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    process.on(signal, () => {
      if (signalled === 0) say(`\n${signal}: stopping the servers`)
      signalled = code
      interrupt.abort(new Error('interrupted'))
    })
  }
  const command = ['npm run bench', ...(args.length > 0 ? ['--', ...args] : [])].join(' ')
  let run: Run
  try {
    run = await measure(options, command, interrupt.signal)
  } catch (error) {
    if (signalled > 0) return signalled
    process.stderr.write(`bench: ${(error as Error).message}\n`)
    return 1
  }
  say('')
  for (const { summary } of run.cases) say(`${renderText(summary)}\n`)
  if (options.profile !== null) printProfiles(options.profile, say)
  if (options.json !== null) writeFileSync(options.json, `${JSON.stringify(run, null, 2)}\n`)
  if (options.report !== null) writePage(options.report, blockOf(options.report, run), report(run))
  const errors = run.cases.flatMap((one) => one.errors)
  if (options.smoke) say('a smoke run: its figures mean nothing')
  say(`${run.minutes.toFixed(1)} minutes; ${errors.length} measurements failed`)
  for (const error of errors) say(`  ${error}`)
  return errors.length > 0 ? 1 : 0
}

process.exitCode = await main(process.argv.slice(2))
