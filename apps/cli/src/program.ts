import { version } from '@askonce/config'
import { Command } from 'commander'
import { addBatch } from './commands/batch.ts'
import { addCancel } from './commands/cancel.ts'
import { addDoctor } from './commands/doctor.ts'
import { addFail } from './commands/fail.ts'
import { addForget } from './commands/forget.ts'
import { addGet } from './commands/get.ts'
import { addGrants } from './commands/grants.ts'
import { addKeys } from './commands/keys.ts'
import { addLanes } from './commands/lanes.ts'
import { addList } from './commands/list.ts'
import { addRetry } from './commands/retry.ts'
import { addSpend } from './commands/spend.ts'
import { addSubmit } from './commands/submit.ts'
import { addSweep } from './commands/sweep.ts'
import { addTenants } from './commands/tenants.ts'
import { registerRoles } from './roles/index.ts'
import { widthOf, wrapped } from './terminal.ts'

const epilogue = `
The server is found by ASKONCE_URL and ASKONCE_API_KEY, else by the data directory (ASKONCE_DATA_DIR, .askonce here).

Exit codes:
  0    done
  1    the work failed, or the server refused
  2    wrong usage or bad input; nothing was done
  3    the server or the database cannot be reached
  130  interrupted
  141  whoever read the output went away

Examples:
  npm start
  askonce submit tour/mars -m simulated/small -p 'Why is the sunset blue on Mars?' --wait 30
  askonce batch prompts.jsonl --out answers.jsonl
  askonce doctor
`

/** The command line, assembled. Errors are thrown, not printed (see main). */
export function buildProgram(): Command {
  const program = new Command('askonce')
    .description('Ask an LLM once per key; get the stored answer as often as you like.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'explain a command')
    .helpCommand('help [command]', 'explain a command')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => process.stdout.write(wrapped(text, widthOf(process.stdout))),
      writeErr: (text) => process.stderr.write(wrapped(text, widthOf(process.stderr))),
      outputError: (text, write) => write(text.replace(/^error: /, 'askonce: ')),
    })
    .showSuggestionAfterError()
    .addHelpText('after', epilogue)
  registerRoles(program)
  addSubmit(program)
  addBatch(program)
  addGet(program)
  addList(program)
  addCancel(program)
  addRetry(program)
  addFail(program)
  addForget(program)
  addSpend(program)
  addLanes(program)
  addKeys(program)
  addTenants(program)
  addSweep(program)
  addGrants(program)
  addDoctor(program)
  return program
}
