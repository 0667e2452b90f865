import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, totalmem } from 'node:os'

/** The figures of a run, in the words in which they are printed. */
export type Figures = Record<string, number>

export interface KindFigures {
  kind: string
  count: number
  p50: number
  max: number
}

export interface Report {
  command: string
  seed: number
  form: string
  minutes: number
  startedAt: string
  /** Null: every promise was kept. */
  broken: string | null
  figures: Figures
  /** What became of the accepted jobs: states and their numbers. */
  states: Record<string, number>
  faults: readonly KindFigures[]
  machine: string
  versions: Record<string, string>
  /** Ends of processes that no fault caused. */
  ownEnds: readonly string[]
}

/** The value below which `share` of the values lie; 0 for none. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0
}

/** Cores and memory, nothing that names the machine, and how busy it was: recovery is mostly processes starting. */
export function describeMachine(): string {
  return `${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, load average before the run ${loadavg()[0]?.toFixed(1)}`
}

/** The commit that is being run, with a word when files differ from it. */
export function describeCommit(): string {
  try {
    const run = (...args: string[]): string =>
      execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
    const changed = run('status', '--porcelain', '--untracked-files=no') !== ''
    return `${run('rev-parse', '--short', 'HEAD')}${changed ? ', changed' : ''}`
  } catch {
    return 'unknown'
  }
}

export function renderReport(report: Report): string {
  const { command, figures, states, faults, machine, versions, startedAt, broken, ownEnds } = report
  const list = (rows: Record<string, number | string>): string =>
    Object.entries(rows)
      .map(([name, value]) => `| ${name} | ${value} |`)
      .join('\n')
  return `Command: \`${command}\`. ${startedAt.slice(0, 10)}, ${machine}; it also ran the load, the servers and the checker.
${Object.entries(versions)
  .map(([name, version]) => `${name} ${version}`)
  .join(', ')}. ${broken === null ? 'Every promise was kept.' : `**Broken: ${broken}**`}

| figure | |
|---|---|
${list(figures)}

Accepted jobs by their state at the end: ${Object.entries(states)
    .map(([state, count]) => `${count} ${state}`)
    .join(', ')}. Processes that ended without a fault: ${ownEnds.length}.

| fault | times | recovery p50 ms | recovery max ms |
|---|---|---|---|
${faults.map(({ kind, count, p50, max }) => `| ${kind} | ${count} | ${p50} | ${max} |`).join('\n')}`
}

/** Writes a page; in one that has the markers of `name`, only what stands between them. */
export function writePage(path: string, name: string, text: string): void {
  const begin = `<!-- ${name}:begin -->`
  const end = `<!-- ${name}:end -->`
  const page = existsSync(path) ? readFileSync(path, 'utf8') : ''
  const from = page.indexOf(begin)
  const to = page.indexOf(end)
  const whole = from === -1 || to < from
  writeFileSync(path, whole ? `${text}\n` : `${page.slice(0, from + begin.length)}\n\n${text}\n\n${page.slice(to)}`)
}
