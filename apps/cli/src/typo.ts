import type { Command, Option } from 'commander'

/** What commander has and its types leave out; both throw. */
interface Refusing {
  unknownOption(flag: string): never
  unknownCommand(): never
}

/**
 * Complains, as commander would, of the first word in a command line that is no command or no long option. Asked before commander is:
 * of two faults it names the one that it meets first, such as a required option that is missing because its name has a typo.
 */
export function refuseTypos(program: Command, argv: readonly string[]): void {
  let command = program
  for (let at = 0; at < argv.length; at += 1) {
    const word = argv[at] as string
    if (word === '--' || word === '--help' || word === '-h') return
    if (word.startsWith('-')) {
      const option = optionOf(command, word)
      if (option === undefined && word.startsWith('--')) refusing(command).unknownOption(word.replace(/=.*/s, ''))
      if (option?.required === true && !hasValue(word, option)) at += 1
    } else if (command.commands.length > 0) {
      const next = command.commands.find((one) => one.name() === word || one.aliases().includes(word))
      if (next === undefined && word === 'help') return
      if (next === undefined) {
        command.args = [word]
        refusing(command).unknownCommand()
      } else command = next
    }
  }
}

function optionOf(command: Command, word: string): Option | undefined {
  const long = word.replace(/=.*/s, '')
  return command.options.find((option) => option.long === long || option.short === word.slice(0, 2))
}

/** `--name=value`, or `-nvalue`. */
function hasValue(word: string, { short }: Option): boolean {
  return word.startsWith('--') ? word.includes('=') : word.length > (short?.length ?? 0)
}

function refusing(command: Command): Refusing {
  return command as unknown as Refusing
}
