import type { Command } from 'commander'
import { usageError } from '../errors.ts'
import { count } from '../format.ts'
import { duplicatesOf, spendTable, twiceTable, type SpendRow, type Totals, type Twice } from '../ledger-view.ts'
import { metadataQuery } from '../job-list.ts'
import { duration, examples, pair } from '../options.ts'
import { withClient } from '../server.ts'
import { print, remark } from '../terminal.ts'

interface Options {
  from?: string
  to?: string
  since?: string
  until?: string
  tz?: string
  keyPrefix?: string
  metadata?: Record<string, string>
  byModel?: boolean
  simulated?: boolean
  json?: boolean
}

interface Spend {
  data: SpendRow[]
  summary: Totals & { from: string; to: string; twice: (Twice & { key: string; job_id: string })[] }
}

/** A year of a busy tenant takes the server a while. */
const sumWaitSeconds = 30
/** Keys that are shown; --json has up to a hundred. */
const shownTwice = 20

/** `askonce spend`. */
export function addSpend(program: Command): void {
  program
    .command('spend')
    .summary('show what was spent, by day')
    .description(
      'Shows what the calls of your tenant have cost, by day, from the ledger: what was billed, what may have been, ' +
        'and what was paid for twice, with its keys. Of all calls, of a run (--metadata) or of keys (--key-prefix).',
    )
    .option('--from <day>', 'first day, such as 2026-01-01; 29 days before the last one unless you say')
    .option('--to <day>', 'last day; today unless you say')
    .option('--since <time>', 'instead of --from: a day, a time such as 2026-01-01T18:00, or an age such as 12h or 7d')
    .option('--until <time>', 'instead of --to: up to this day, time or age, which is left out; now unless you say')
    .option('--tz <zone>', 'time zone of days and times, such as Europe/Berlin; UTC unless you say')
    .option('--metadata <name=value>', 'only what jobs with this metadata cost; repeatable', pair)
    .option('--key-prefix <text>', 'only what keys cost that begin with this')
    .option('--by-model', 'a row for each day, provider and model')
    .option('--simulated', 'what the simulator was asked, which costs nothing, instead of all else')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples([
        'askonce spend',
        'askonce spend --from 2026-01-01 --to 2026-01-31 --by-model --tz America/New_York',
        'askonce spend --metadata run=7',
        'askonce spend --key-prefix nightly/ --since 12h',
      ]),
    )
    .action(spend)
}

/** What `--since` and `--until` mean: ages count back from now, on this machine's clock. */
function momentOf(text: string): string {
  if (!/^\d+[smhd]$/.test(text)) return text
  return new Date(Date.now() - duration(text)).toISOString()
}

function queryOf(options: Options): URLSearchParams {
  const { from, to, since, until, tz, keyPrefix, metadata, byModel, simulated } = options
  if ((from ?? to) !== undefined && (since ?? until) !== undefined) {
    throw usageError('--from and --to mean days, --since and --until times: use one or the other')
  }
  const query = new URLSearchParams()
  const members = {
    from,
    to,
    since: since && momentOf(since),
    until: until && momentOf(until),
    tz,
    key_prefix: keyPrefix,
  }
  for (const [name, value] of Object.entries(members)) if (value !== undefined) query.set(name, value)
  for (const one of metadataQuery(metadata)) query.append('metadata', one)
  if (byModel) query.set('group_by', 'model')
  if (simulated) query.set('simulated', 'true')
  return query
}

async function spend(options: Options): Promise<void> {
  const query = queryOf(options)
  await withClient(async (client) => {
    const { bytes } = await client.send({
      method: 'GET',
      path: `/v1/spend?${query.toString()}`,
      waitSeconds: sumWaitSeconds,
    })
    const text = bytes.toString('utf8')
    // As it came: its dollars may have more digits than a double holds.
    if (options.json) return print(text)
    const { data, summary } = JSON.parse(text) as Spend
    if (data.length === 0) {
      const but = options.simulated ? '' : ' What the simulator was asked: --simulated'
      return remark(`Nothing was called from ${summary.from} to ${summary.to}.${but}`)
    }
    print(spendTable(data, summary, options.byModel === true))
    if (summary.unpriced > 0) {
      remark(
        `+ ?: ${count(summary.unpriced, 'billed call')} at a price that is not known. ASKONCE_CONFIG can name prices.`,
      )
    }
    if (summary.duplicates + summary.possible_duplicates === 0) return
    remark(`Paid twice: ${duplicatesOf(summary)}`)
    print(`\n${twiceTable(summary.twice.slice(0, shownTwice))}`)
    if (summary.twice.length > shownTwice)
      remark('These are the latest; --json has up to 100, askonce list --twice all.')
  })
}
