import type { Command } from 'commander'
import { duplicatesOf, spendTable, unpricedOf, type SpendRow, type Totals } from '../ledger-view.ts'
import { examples } from '../options.ts'
import { withClient } from '../server.ts'
import { print, remark } from '../terminal.ts'

interface Options {
  from?: string
  to?: string
  byModel?: boolean
  json?: boolean
}

interface Spend {
  data: SpendRow[]
  summary: Totals & { from: string; to: string }
}

/** A year of a busy tenant takes the server a while. */
const sumWaitSeconds = 30

/** `askonce spend`. */
export function addSpend(program: Command): void {
  program
    .command('spend')
    .summary('show what was spent, by day')
    .description(
      'Shows what the calls of your tenant have cost, by UTC day, from the ledger: what was billed, what may have been,\n' +
        'and what was paid for twice.',
    )
    .option('--from <day>', 'first day, such as 2026-01-01; 29 days before the last one unless you say')
    .option('--to <day>', 'last day; today unless you say')
    .option('--by-model', 'a row for each day, provider and model')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples(['askonce spend', 'askonce spend --from 2026-01-01 --to 2026-01-31 --by-model', 'askonce spend --json']),
    )
    .action(spend)
}

async function spend({ from, to, byModel = false, json }: Options): Promise<void> {
  const query = new URLSearchParams()
  if (from !== undefined) query.set('from', from)
  if (to !== undefined) query.set('to', to)
  if (byModel) query.set('group_by', 'model')
  await withClient(async (client) => {
    const { bytes } = await client.send({
      method: 'GET',
      path: `/v1/spend?${query.toString()}`,
      waitSeconds: sumWaitSeconds,
    })
    const text = bytes.toString('utf8')
    // As it came: its dollars may have more digits than a double holds.
    if (json) return print(text)
    const { data, summary } = JSON.parse(text) as Spend
    if (data.length === 0) return remark(`Nothing was called from ${summary.from} to ${summary.to}.`)
    print(spendTable(data, summary, byModel))
    if (summary.unpriced > 0) remark(`The cost is what is known${unpricedOf(summary)}. ASKONCE_CONFIG can name prices.`)
    if (summary.duplicates + summary.possible_duplicates > 0) remark(`Paid twice: ${duplicatesOf(summary)}`)
  })
}
