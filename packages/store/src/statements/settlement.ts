import { sql } from 'kysely'
import { checked } from '../fragments.ts'

/**
 * CTEs that settle what the claims of ended attempts had reserved, in the statement that ends them; `recorded` are the attempts whose ledger
 * row it changes. `none` and `billed` are final, and an attempt comes to one of them once, so each reservation is given back once.
 * `maybe` keeps it until there is evidence.
 *
 * Days and seconds exist only for tenants with a budget or limits; for the others this is a look-up for each tenant and day in a group.
 * Rows are locked in one order, days before seconds, after those of jobs, which a claim never waits for.
 */
export const settlement = sql`
    final as materialized (
      select
        tenant_id, (started_at at time zone 'UTC')::date as day, floor(extract(epoch from started_at))::bigint as "second",
        coalesce(reserved_usd, 0) as reserved_usd,
        case when billing = 'billed' then coalesce(cost_usd, reserved_usd, 0) else 0 end as spent_usd,
        case
          when reserved_tokens is null then null
          when billing = 'none' then -reserved_tokens
          when num_nonnulls(input_tokens, output_tokens) > 0 then
            coalesce(input_tokens, 0) + coalesce(output_tokens, 0) - reserved_tokens
        end as more_tokens
      from recorded where billing <> 'maybe'
    ),
    days as materialized (
      select t.tenant_id, t.day, f.reserved_usd, f.spent_usd
      from (
        select tenant_id, day, sum(reserved_usd) as reserved_usd, sum(spent_usd) as spent_usd from final
        group by tenant_id, day order by tenant_id, day
      ) f
      cross join lateral (
        select tenant_id, day from tenant_days where tenant_id = f.tenant_id and day = f.day limit 1 for no key update
      ) t
    ),
    settled_days as (
      update tenant_days t set reserved_usd = t.reserved_usd - d.reserved_usd, spent_usd = t.spent_usd + d.spent_usd from days d
      where t.tenant_id = any(array(select tenant_id from days)) and t.day = any(array(select day from days))
        and ${checked(sql`t.tenant_id = d.tenant_id and t.day = d.day`)}
    ),
    seconds as materialized (
      select t.tenant_id, t."second", f.more_tokens
      from (
        select tenant_id, "second", sum(more_tokens) as more_tokens from final
        -- After the days are locked.
        where more_tokens <> 0 and (select count(*) from days) >= 0
        group by tenant_id, "second" order by tenant_id, "second"
      ) f
      cross join lateral (
        select tenant_id, "second" from tenant_seconds
        where tenant_id = f.tenant_id and "second" = f."second" limit 1 for no key update
      ) t
    ),
    settled_seconds as (
      update tenant_seconds t set tokens = t.tokens + s.more_tokens from seconds s
      where t.tenant_id = any(array(select tenant_id from seconds)) and t."second" = any(array(select "second" from seconds))
        and ${checked(sql`t.tenant_id = s.tenant_id and t."second" = s."second"`)}
    )`
