import { execFileSync } from 'node:child_process'
import { join } from 'node:path'

/** Names that commander's help lists under "Commands:". */
function listed(help: string): string[] {
  const [, commands = ''] = /^Commands:\n((?: .*\n?)+)/m.exec(help) ?? []
  return [...commands.matchAll(/^ {2}([a-z][a-z-]*)/gm)].map(([, name = '']) => name).filter((name) => name !== 'help')
}

/** Every command of `askonce` with its subcommands, asked of the program itself. */
export function cliCommands(root: string): Map<string, string[]> {
  const help = (...command: string[]) =>
    execFileSync(process.execPath, [join(root, 'apps/cli/bin/askonce.js'), ...command, '--help'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  return new Map(listed(help()).map((name) => [name, listed(help(name))]))
}
