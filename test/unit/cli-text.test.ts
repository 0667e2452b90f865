import { createLog, readableLines } from '@askonce/telemetry'
import { CommanderError } from 'commander'
import { describe, expect, it } from 'vitest'
import { buildProgram } from '../../apps/cli/src/program.ts'
import { wrapped } from '../../apps/cli/src/terminal.ts'
import { refuseTypos } from '../../apps/cli/src/typo.ts'

describe('a command line with several faults', () => {
  const complaint = (line: string): string => {
    const program = buildProgram()
    let said = ''
    const quiet = {
      writeErr: (text: string) => void (said += text),
      outputError: (text: string) => void (said += text),
    }
    const each = (command: typeof program): void => {
      command.configureOutput(quiet).exitOverride()
      command.commands.forEach(each)
    }
    each(program)
    try {
      refuseTypos(program, line.split(' '))
    } catch (error) {
      if (!(error instanceof CommanderError)) throw error
    }
    return said
  }

  it.each([
    ['batchh --priorty 3', "unknown command 'batchh'\n(Did you mean batch?)"],
    ['batch x.jsonl --priorty 3', "unknown option '--priorty'\n(Did you mean --priority?)"],
    ['batch x.jsonl --ttl 0 --priorty 3', "unknown option '--priorty'"],
    ['batch --ot=x', "unknown option '--ot'\n(Did you mean --out?)"],
    ['keys creat --nam x', "unknown command 'creat'\n(Did you mean create?)"],
    ['keys create --nam x', "unknown option '--nam'\n(Did you mean --name?)"],
  ])('%s: the typo is named', (line, expected) => {
    expect(complaint(line)).toContain(expected)
  })

  it.each([
    'batch x',
    'submit k -m --x',
    'submit k --prompt --what',
    'batch -- --ot',
    'batch --hepl --help',
    'help batchh',
  ])('%s: nothing is taken for a typo that is none', (line) => {
    expect(complaint(line.replace('--hepl ', ''))).toBe('')
  })
})

describe('lines on a terminal', () => {
  it('break between words, behind the indentation of their beginning', () => {
    expect(wrapped('  one two three four', 11)).toBe('  one two\n  three\n  four')
    expect(wrapped('short\nanother line', 12)).toBe('short\nanother line')
    expect(wrapped('see http://127.0.0.1:8787/docs now', 12)).toBe('see\nhttp://127.0.0.1:8787/docs\nnow')
    expect(wrapped('\u001b[31maskonce:\u001b[39m no', 12)).toBe('\u001b[31maskonce:\u001b[39m no')
  })

  it('of the log are for people, hold everything, and nothing that a terminal obeys', () => {
    let text = ''
    const log = createLog({
      level: 'info',
      role: 'start',
      destination: readableLines({ write: (line) => (text += line) }),
    })
    log.event('lane.stopped', { lane: 'openai', reason: 'no money \u001b[2J\u009b left' })
    expect(text).toMatch(/^\d\d:\d\d:\d\d [A-Z]+ +lane\.stopped lane=openai reason="no money \\u001b\[2J\? left"\n$/)
  })
})
