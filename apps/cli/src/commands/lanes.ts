import type { Command } from 'commander'
import { relative } from '../format.ts'
import { examples } from '../options.ts'
import { withClient } from '../server.ts'
import { table } from '../table.ts'
import { print, printJson } from '../terminal.ts'

interface Lane {
  name: string
  state: 'open' | 'paused' | 'breaker' | 'stopped'
  reason: string | null
  until: string | null
}

const styles = { open: 'green', paused: 'yellow', breaker: 'yellow', stopped: 'red' } as const

/** `askonce lanes`. */
export function addLanes(program: Command): void {
  const lanes = program
    .command('lanes')
    .summary('show provider lanes, resume stopped ones')
    .description(
      'A lane is one provider endpoint. It stops when money or credentials are wrong, until somebody resumes it.',
    )
    .addHelpText('after', examples(['askonce lanes list', 'askonce lanes resume openai']))
  lanes
    .command('list')
    .description('Shows every lane, and why one is closed.')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce lanes list --json']))
    .action(list)
  lanes
    .command('resume')
    .description('Opens a lane again once its cause is mended.')
    .argument('<name>', 'name of the lane')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce lanes resume openai']))
    .action(resume)
}

async function list({ json }: { json?: boolean }): Promise<void> {
  await withClient(async (client) => {
    const lanes = await client.json<{ data: Lane[] }>({ method: 'GET', path: '/v1/lanes' })
    if (json) return printJson(lanes)
    print(
      table<Lane>(
        [
          { title: 'LANE', value: ({ name }) => name },
          { title: 'STATE', value: ({ state }) => state, style: ({ state }) => styles[state] },
          { title: 'UNTIL', value: ({ state, until }) => (state === 'stopped' ? 'resumed' : relative(until)) },
          { title: 'REASON', value: ({ reason }) => reason ?? '-', shrinks: true },
        ],
        lanes.data,
      ),
    )
  })
}

async function resume(name: string, { json }: { json?: boolean }): Promise<void> {
  await withClient(async (client) => {
    const path = `/v1/lanes/${encodeURIComponent(name)}/resume`
    const lane = await client.json<Lane>({ method: 'POST', path, body: '{}' })
    if (json) printJson(lane)
    else print(`${lane.name} ${lane.state}`)
  })
}
