import { sql, type RawBuilder } from 'kysely'

/**
 * What attempts have cost together. Dollars are decimal text: a sum of doubles is not the sum on an invoice. They are null where calls were or may
 * have been billed and not a single price is known: that is no $0.
 */
export interface LedgerTotals {
  /** Rows of the ledger: each is at most one request to a provider. */
  calls: number
  billed: number
  maybe: number
  none: number
  /** Without an end so far. */
  open: number
  /** Billed at a price that is not known, and so not in `cost_usd`. */
  unpriced: number
  input_tokens: number
  output_tokens: number
  cost_usd: string | null
  /** Billed besides the attempt that is kept, and what that cost. */
  duplicates: number
  duplicate_cost_usd: string | null
  /** Open or maybe billed besides the attempt that is kept, and what that would have cost at the price of the kept one. */
  possible_duplicates: number
  possible_duplicate_cost_usd: string | null
}

/**
 * The attempts of each job in the order in which they are kept: the one whose answer is stored, else the first that was billed, else
 * the first that may have been. What cost nothing comes last.
 */
const oneJob = sql`(
  partition by a.job_id
  order by a.billing is not distinct from 'none', a.outcome is distinct from 'answered', a.billing is distinct from 'billed', a.attempt
)`

/**
 * Columns over all attempts `a` of some jobs: every attempt that was or may have been paid besides the kept one is a duplicate, `certain`
 * if it was billed (then the kept one was, too), else `possible`. An id is one request to answer a key, so attempts of another id of the
 * same key, after expiry, are no duplicates.
 */
export const judgement = sql`
  case
    when a.billing = 'none' or row_number() over ${oneJob} = 1 then null
    when a.billing = 'billed' then 'certain'
    else 'possible'
  end as duplicate,
  first_value(a.cost_usd) over ${oneJob} as kept_cost_usd`

/** The lane whose calls cost nothing, whatever the price list knows. */
export const simulatedLane = 'simulated'
const priceless = sql`a.lane <> ${simulatedLane}`

/** The sum of `cost` over the attempts that `counts` says; null where there are some that `may` cost something and no cost is known. */
const dollars = (cost: RawBuilder<unknown>, counts: RawBuilder<unknown>, may = counts) => sql`
  case
    when count(*) filter (where ${may} and ${priceless}) = 0 or count(${cost}) filter (where ${counts}) > 0
    then trim_scale(coalesce(sum(${cost}) filter (where ${counts}), 0))::text
  end`

/** {@link LedgerTotals} of the attempts `a` that carry their {@link judgement}. */
export const ledgerTotals = sql`
  count(*) as calls,
  count(*) filter (where a.billing = 'billed') as billed,
  count(*) filter (where a.billing = 'maybe') as maybe,
  count(*) filter (where a.billing = 'none') as none,
  count(*) filter (where a.billing is null) as open,
  count(*) filter (where a.billing = 'billed' and a.cost_usd is null and ${priceless}) as unpriced,
  coalesce(sum(a.input_tokens), 0) as input_tokens,
  coalesce(sum(a.output_tokens), 0) as output_tokens,
  ${dollars(sql`a.cost_usd`, sql`a.billing = 'billed'`, sql`a.billing in ('billed', 'maybe')`)} as cost_usd,
  count(*) filter (where a.duplicate = 'certain') as duplicates,
  ${dollars(sql`a.cost_usd`, sql`a.duplicate = 'certain'`)} as duplicate_cost_usd,
  count(*) filter (where a.duplicate = 'possible') as possible_duplicates,
  ${dollars(sql`coalesce(a.cost_usd, a.kept_cost_usd)`, sql`a.duplicate = 'possible'`)} as possible_duplicate_cost_usd`
