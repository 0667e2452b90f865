import { ConfigError, configTable, loadConfig, type Config } from '@askonce/config'
import { unreadNotice } from '../database.ts'
import { exitCodes } from '../errors.ts'
import { count } from '../format.ts'
import { oneLine, paint, print, printJson, type Style } from '../terminal.ts'
import { type Check, ok, problem, type Status, warn } from './check.ts'
import { checkDatabase } from './database.ts'
import { checkDataDirectory, checkNode, checkOpenFiles, checkSpool } from './machine.ts'
import { checkProviders } from './providers.ts'
import { checkRedis } from './redis.ts'
import { checkServer } from './server.ts'

const styles: Record<Status, Style> = { ok: 'green', warn: 'yellow', problem: 'red' }

/** Looks at everything, says what to do, and sets the exit code: 1 when there is a problem. */
export async function runDoctor(asJson: boolean): Promise<void> {
  const checks = [checkNode(), ...(await configured())]
  const problems = checks.filter(({ status }) => status === 'problem').length
  const warnings = checks.filter(({ status }) => status === 'warn').length
  if (asJson) printJson({ object: 'doctor', status: worst(checks), checks, config: configTable() })
  else {
    for (const check of checks) show(check)
    showConfig()
    print(
      `\n${problems === 0 && warnings === 0 ? 'All is well.' : `${count(problems, 'problem')}, ${count(warnings, 'warning')}.`}`,
    )
  }
  if (problems > 0) process.exitCode = exitCodes.failed
}

/** Everything that needs a configuration; without a valid one, what is wrong with it. */
async function configured(): Promise<Check[]> {
  let config: Config
  try {
    config = loadConfig()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems.map((text) => problem('config', text, 'docs/config.md lists every variable.'))
  }
  const found = await Promise.all([
    checkDataDirectory(config),
    checkDatabase(config),
    checkRedis(config),
    checkServer(),
    checkProviders(config),
    checkSpool(config),
  ])
  return [ok('config', 'valid'), ...unread(config), checkOpenFiles(config), ...found.flat()]
}

/** Somebody who sets PGHOST may think that it is used. */
function unread(config: Config): Check[] {
  const notice = unreadNotice(config).trim()
  return notice === '' ? [] : [warn('database', 'the embedded database is used', notice)]
}

function worst(checks: readonly Check[]): Status {
  const statuses = new Set(checks.map(({ status }) => status))
  return statuses.has('problem') ? 'problem' : statuses.has('warn') ? 'warn' : 'ok'
}

function show({ name, status, detail, todo }: Check): void {
  print(`${paint(process.stdout, styles[status], status.padEnd(7))}  ${name.padEnd(15)}  ${oneLine(detail)}`)
  if (todo !== null) print(`${' '.repeat(26)}-> ${todo}`)
}

/** What the environment sets; `--json` has the defaults too. */
function showConfig(): void {
  const set = configTable().filter(({ from }) => from === 'environment')
  if (set.length > 0) print('\nSet in the environment (everything else has its default, see docs/config.md):')
  for (const { variable, value } of set) print(`  ${variable}=${oneLine(value)}`)
}
