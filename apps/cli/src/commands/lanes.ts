import type { Command } from 'commander'
import { relative } from '../format.ts'
import { examples } from '../options.ts'
import { withClient } from '../server.ts'
import { table } from '../table.ts'
import { print, printJson } from '../terminal.ts'

interface Closing {
  state: 'open' | 'paused' | 'breaker' | 'stopped'
  reason: string | null
  until: string | null
}

interface Lane extends Closing {
  name: string
  models: (Closing & { model: string })[]
}

/** A line of the table: a lane, or a model that is paused in it. */
interface Line extends Closing {
  name: string
  model: string | null
}

const styles = { open: 'green', paused: 'yellow', breaker: 'yellow', stopped: 'red' } as const

/** `askonce lanes`. */
export function addLanes(program: Command): void {
  const lanes = program
    .command('lanes')
    .summary('show provider lanes, resume stopped ones')
    .description(
      'A lane is one provider endpoint. It stops when money or credentials are wrong, until somebody resumes it. A rate limit pauses one model of it, for an hour at most. Both commands need a key with the scope operator.',
    )
    .addHelpText('after', examples(['askonce lanes list', 'askonce lanes resume openai']))
  lanes
    .command('list')
    .description('Shows every lane and every paused model, and why one is closed.')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce lanes list --json']))
    .action(list)
  lanes
    .command('resume')
    .description('Opens a lane again once its cause is mended, with every model in it.')
    .argument('<name>', 'name of the lane')
    .option('-m, --model <name>', 'only this model')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce lanes resume openai', 'askonce lanes resume openai --model gpt-4.1']))
    .action(resume)
}

function linesOf({ name, state, reason, until, models }: Lane): Line[] {
  const whole = { name, model: null, state, reason, until }
  return [whole, ...models.map((closing) => Object.assign({ name }, closing))]
}

async function list({ json }: { json?: boolean }): Promise<void> {
  await withClient(async (client) => {
    const lanes = await client.json<{ data: Lane[] }>({ method: 'GET', path: '/v1/lanes' })
    if (json) return printJson(lanes)
    print(
      table<Line>(
        [
          { title: 'LANE', value: ({ name }) => name },
          { title: 'MODEL', value: ({ model }) => model ?? '-' },
          { title: 'STATE', value: ({ state }) => state, style: ({ state }) => styles[state] },
          { title: 'UNTIL', value: ({ state, until }) => (state === 'stopped' ? 'resumed' : relative(until)) },
          { title: 'REASON', value: ({ reason }) => reason ?? '-', shrinks: true },
        ],
        lanes.data.flatMap(linesOf),
      ),
    )
  })
}

async function resume(name: string, { json, model }: { json?: boolean; model?: string }): Promise<void> {
  await withClient(async (client) => {
    const path = `/v1/lanes/${encodeURIComponent(name)}/resume`
    const lane = await client.json<Lane>({ method: 'POST', path, body: JSON.stringify({ model }) })
    if (json) printJson(lane)
    else if (model === undefined) print(`${lane.name} ${lane.state}`)
    else print(`${lane.name} ${lane.state}, ${model} open`)
  })
}
