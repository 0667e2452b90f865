import { count, dollars, relative } from './format.ts'
import { table, type Column } from './table.ts'
import { oneLine, onTerminal, print } from './terminal.ts'

/** What attempts have cost together, as the server sums it up. */
export interface Totals {
  calls: number
  billed: number
  maybe: number
  none: number
  open: number
  unpriced: number
  input_tokens: number
  output_tokens: number
  /** Null: something was billed or may have been, and no price is known. */
  cost_usd: number | null
  duplicates: number
  duplicate_cost_usd: number | null
  possible_duplicates: number
  possible_duplicate_cost_usd: number | null
}

/** What was paid for twice, or may have been. */
export type Twice = Pick<
  Totals,
  'duplicates' | 'duplicate_cost_usd' | 'possible_duplicates' | 'possible_duplicate_cost_usd'
>

interface Attempt {
  /** In the ledger of a key. */
  job_id?: string
  attempt: number
  generation: number
  outcome: string | null
  billing: string | null
  provider: string
  model: string
  provider_status: number | null
  error_code: string | null
  started_at: string
  input_tokens: number | null
  output_tokens: number | null
  cost_usd: number | null
}

export interface Ledger {
  data: Attempt[]
  has_more: boolean
  summary: Totals
}

/** The ledger of a job or a key: its attempts, and what they come to. */
export function showAttempts({ data, has_more: more, summary }: Ledger): void {
  if (data.length === 0) return print('No attempt yet.')
  const several = new Set(data.map(({ job_id: id }) => id)).size > 1
  print(
    table<Attempt>(
      [
        ...(several ? [{ title: 'JOB', value: ({ job_id: id }: Attempt) => id ?? '' }] : []),
        { title: '#', value: ({ attempt }) => String(attempt), right: true },
        { title: 'RUN', value: ({ generation }) => String(generation), right: true },
        { title: 'OUTCOME', value: ({ outcome }) => outcome ?? 'open' },
        { title: 'BILLING', value: ({ billing }) => billing ?? 'open', style: billingStyle },
        { title: 'PROVIDER', value: ({ provider }) => provider, drops: 1 },
        { title: 'STATUS', value: ({ provider_status: status }) => String(status ?? '-'), right: true, drops: 3 },
        { title: 'TOKENS', value: ({ input_tokens: i, output_tokens: o }) => `${i ?? '-'}/${o ?? '-'}`, right: true },
        { title: 'COST', value: ({ cost_usd: cost }) => (cost === null ? '-' : dollars(cost)), right: true },
        { title: 'STARTED', value: ({ started_at: started }) => relative(started), drops: 2 },
        { title: 'ERROR', value: ({ error_code: code }) => code ?? '-', shrinks: true },
      ],
      data,
    ),
  )
  if (more) print(`These are the first ${data.length} of ${summary.calls}.`)
  print(`\n${onTerminal(`${callsOf(summary)}; cost: ${costOf(summary)}`)}`)
  print(onTerminal(`Paid twice: ${duplicatesOf(summary)}`))
}

function billingStyle({ billing }: Attempt): 'yellow' | null {
  return billing === 'maybe' ? 'yellow' : null
}

/** `3 calls: 1 billed, 2 maybe`. */
function callsOf({ calls, billed, maybe, none, open }: Totals): string {
  const parts = Object.entries({ billed, maybe, none, open }).filter(([, amount]) => amount > 0)
  return `${count(calls, 'call')}: ${parts.map(([name, amount]) => `${amount} ${name}`).join(', ')}`
}

/** What is known of a cost, and what is not: never $0 for a price that is not known. */
function costOf({ cost_usd: cost, unpriced }: Totals): string {
  if (cost === null) return `unknown price${unpriced > 0 ? ` (${count(unpriced, 'billed call')})` : ''}`
  return unpriced === 0 ? dollars(cost) : `${dollars(cost)}, and ${count(unpriced, 'billed call')} at an unknown price`
}

/** Dollars in a column: what is there may not be all. */
function costCell({ cost_usd: cost, unpriced }: Totals): string {
  return cost === null ? '?' : `${dollars(cost)}${unpriced > 0 ? ' + ?' : ''}`
}

/** Whether the same answer was paid for more than once, and what that cost. */
export function duplicatesOf(totals: Twice): string {
  const { duplicates, possible_duplicates: possible } = totals
  const parts = [
    ...(duplicates > 0 ? [`yes, ${count(duplicates, 'call')} (${duplicateCostOf(totals)})`] : []),
    ...(possible > 0 ? [`maybe, ${count(possible, 'call')} (${estimateOf(totals)})`] : []),
  ]
  return parts.length === 0 ? 'no' : parts.join('; ')
}

function duplicateCostOf({ duplicate_cost_usd: cost }: Twice): string {
  return cost === null ? 'at an unknown price' : dollars(cost)
}

function estimateOf({ possible_duplicate_cost_usd: cost }: Twice): string {
  return cost !== null && cost > 0 ? `about ${dollars(cost)}` : 'at an unknown price'
}

interface Decision {
  at: string
  action: string
  accept_duplicate_charge: boolean
  reason: string | null
  by: { key_name: string }
  from_state: string
  to_state: string
  generation: number
}

/** Who decided what about a job. */
export function showDecisions({ data }: { data: Decision[] }): void {
  if (data.length === 0) return print('No decision yet.')
  print(
    table<Decision>(
      [
        { title: 'WHEN', value: ({ at }) => at.slice(0, 19).replace('T', ' ') },
        { title: 'WHAT', value: ({ action, accept_duplicate_charge: yes }) => (yes ? `${action}, consent` : action) },
        { title: 'FROM', value: ({ from_state: state }) => state, drops: 2 },
        { title: 'TO', value: ({ to_state: state }) => state },
        { title: 'RUN', value: ({ generation }) => String(generation), right: true, drops: 1 },
        { title: 'BY', value: ({ by }) => by.key_name },
        { title: 'WHY', value: ({ reason }) => oneLine(reason ?? '-'), shrinks: true },
      ],
      data,
    ),
  )
}

export type SpendRow = Totals & { date: string; provider?: string; model?: string }

/** Days, and below them what they come to. */
export function spendTable(rows: readonly SpendRow[], total: Totals, byModel: boolean): string {
  const divided: Column<SpendRow>[] = [
    { title: 'PROVIDER', value: ({ provider }) => provider ?? '', drops: 4 },
    { title: 'MODEL', value: ({ model }) => model ?? '', shrinks: true },
  ]
  const figure = (title: string, value: (row: SpendRow) => string, drops?: number): Column<SpendRow> => ({
    title,
    value,
    right: true,
    ...(drops === undefined ? {} : { drops }),
  })
  return table<SpendRow>(
    [
      { title: 'DATE', value: ({ date }) => date },
      ...(byModel ? divided : []),
      figure('CALLS', ({ calls }) => String(calls)),
      figure('BILLED', ({ billed }) => String(billed), 3),
      figure('MAYBE', ({ maybe }) => String(maybe)),
      figure('NONE', ({ none }) => String(none), 2),
      figure('OPEN', ({ open }) => String(open), 1),
      figure('TOKENS', ({ input_tokens: i, output_tokens: o }) => `${i}/${o}`),
      figure('COST', costCell),
      figure('TWICE', ({ duplicates, possible_duplicates: possible }) =>
        possible > 0 ? `${duplicates} (${possible}?)` : String(duplicates),
      ),
    ],
    [...rows, { ...total, date: 'total' }],
  )
}

/** Keys that something was paid for twice, or may have been. */
export function twiceTable(rows: readonly (Twice & { key: string; job_id: string })[]): string {
  return table(
    [
      { title: 'JOB', value: ({ job_id: id }) => id, drops: 1 },
      { title: 'PAID TWICE', value: duplicatesOf },
      { title: 'KEY', value: ({ key }) => key, shrinks: true },
    ],
    rows,
  )
}
