import { noLimits, tenantBounds, type OnUncertain, type SubmissionLimits, type TenantLimits } from '@askonce/core'
import { sql } from 'kysely'
import type { Db } from '../tables.ts'

/** What holds for a tenant's submissions that do not say otherwise; null: what the server's variables say. */
export interface TenantDefaults {
  onUncertain: OnUncertain | null
  maxAttempts: number | null
  maxPaidAttempts: number | null
  ttlSeconds: number | null
  timeoutSeconds: number | null
}

/** Of a tenant for whom nothing is set. */
export const noDefaults: TenantDefaults = {
  onUncertain: null,
  maxAttempts: null,
  maxPaidAttempts: null,
  ttlSeconds: null,
  timeoutSeconds: null,
}

export interface Tenant extends TenantDefaults, TenantLimits {
  id: string
  createdAt: Date
  /** Whether requests of SDKs that name no key get one that is derived from what they ask. */
  deriveKeys: boolean
}

/** What can be set of a tenant: null takes a value away, what is left out or undefined stays. A weight that is taken away is 1. */
export type TenantSettings = { [Name in keyof Omit<Tenant, 'id' | 'createdAt'>]?: Tenant[Name] | null | undefined }

const defaults = [
  'on_uncertain as onUncertain',
  'max_attempts as maxAttempts',
  'max_paid_attempts as maxPaidAttempts',
  'ttl_seconds as ttlSeconds',
  'timeout_seconds as timeoutSeconds',
] as const

/** The limits that a submission is looked at for. */
export const submissionLimits = [
  'max_queued as maxQueued',
  'submissions_per_second as submissionsPerSecond',
  'budget_day_usd as budgetDayUsd',
  'budget_month_usd as budgetMonthUsd',
] as const

const selection = [
  'id',
  'created_at as createdAt',
  'derive_keys as deriveKeys',
  ...defaults,
  'weight',
  'max_running as maxRunning',
  'calls_per_minute as callsPerMinute',
  'tokens_per_minute as tokensPerMinute',
  ...submissionLimits,
] as const

/** Every tenant, by name. */
export function listTenants(db: Db): Promise<Tenant[]> {
  return db.selectFrom('tenants').select(selection).orderBy('id').execute()
}

/** Null: there is no such tenant. */
export async function readTenant(db: Db, tenantId: string): Promise<Tenant | null> {
  return (await db.selectFrom('tenants').select(selection).where('id', '=', tenantId).executeTakeFirst()) ?? null
}

/** What a submission needs to know of its tenant; {@link noDefaults} and no limits for one that is not there. */
export async function readSubmissionRules(
  db: Db,
  tenantId: string,
): Promise<{ defaults: TenantDefaults; limits: SubmissionLimits }> {
  const row = await db
    .selectFrom('tenants')
    .select([...defaults, ...submissionLimits])
    .where('id', '=', tenantId)
    .executeTakeFirst()
  if (row === undefined) return { defaults: noDefaults, limits: noLimits }
  const { maxQueued, submissionsPerSecond, budgetDayUsd, budgetMonthUsd, ...rest } = row
  return { defaults: rest, limits: { maxQueued, submissionsPerSecond, budgetDayUsd, budgetMonthUsd } }
}

function columnsOf(given: TenantSettings): Record<string, unknown> {
  const columns: Record<string, unknown> = {
    derive_keys: given.deriveKeys,
    on_uncertain: given.onUncertain,
    max_attempts: given.maxAttempts,
    max_paid_attempts: given.maxPaidAttempts,
    ttl_seconds: given.ttlSeconds,
    timeout_seconds: given.timeoutSeconds,
  }
  for (const [name, { column }] of Object.entries(tenantBounds)) columns[column] = given[name as keyof TenantLimits]
  if (columns['weight'] === null) columns['weight'] = noLimits.weight
  return Object.fromEntries(Object.entries(columns).filter(([, value]) => value !== undefined))
}

/** Makes a tenant. Null: there is one of this name, which stays as it is. */
export async function createTenant(db: Db, tenantId: string, given: TenantSettings): Promise<Tenant | null> {
  const row = await db
    .insertInto('tenants')
    .values({ id: tenantId, ...columnsOf(given) })
    .onConflict((conflict) => conflict.doNothing())
    .returning(selection)
    .executeTakeFirst()
  return row ?? null
}

/** Changes what is given. Null: there is no such tenant. A limit below what runs ends nothing: only nothing new starts. */
export async function setTenant(db: Db, tenantId: string, given: TenantSettings): Promise<Tenant | null> {
  const columns = columnsOf(given)
  if (Object.keys(columns).length === 0) return readTenant(db, tenantId)
  const row = await db
    .updateTable('tenants')
    .set(columns)
    .where('id', '=', tenantId)
    .returning(selection)
    .executeTakeFirst()
  return row ?? null
}

/** What a tenant uses at this moment. Money in US dollars, by days and months of UTC. */
export interface TenantUse {
  running: number
  queued: number
  /** Spent, without what is only reserved. */
  usdDay: number
  usdMonth: number
  /** Reserved in this month by calls that are under way, or that may have been billed. */
  reservedUsd: number
  /** Reserved today. */
  reservedUsdDay: number
  /** Of the last minute; counted only for tenants with a limit by minute. */
  callsMinute: number
  tokensMinute: number
}

/**
 * The use of a tenant. What was spent comes from `tenant_days` for the days that have a row there, as the budget itself does, and from the
 * ledger for the others: so its cost follows what is queued and running, and, of a tenant without a budget, the attempts of the month.
 */
export async function readTenantUse(db: Db, tenantId: string): Promise<TenantUse> {
  const lastMinute = sql`tenant_id = ${tenantId} and second > floor(extract(epoch from now()))::bigint - 60`
  const { rows } = await sql<TenantUse>`
    with today as (
      select (now() at time zone 'utc')::date as day, date_trunc('month', now() at time zone 'utc')::date as month
    ),
    spent as (
      select d.day, d.spent_usd, d.reserved_usd from tenant_days d, today t
      where d.tenant_id = ${tenantId} and d.day between t.month and t.day
      union all
      select (a.started_at at time zone 'utc')::date, coalesce(a.cost_usd, 0), 0 from attempts a, today t
      where a.tenant_id = ${tenantId} and a.started_at >= t.month at time zone 'utc' and a.billing = 'billed'
        and not exists (
          select from tenant_days d where d.tenant_id = ${tenantId} and d.day = (a.started_at at time zone 'utc')::date
        )
    )
    select
      (select count(*) from open_attempts where tenant_id = ${tenantId})::integer as running,
      (select count(*) from ready where tenant_id = ${tenantId})::integer as queued,
      coalesce(sum(s.spent_usd) filter (where s.day = t.day), 0)::float8 as "usdDay",
      coalesce(sum(s.spent_usd), 0)::float8 as "usdMonth",
      coalesce(sum(s.reserved_usd), 0)::float8 as "reservedUsd",
      coalesce(sum(s.reserved_usd) filter (where s.day = t.day), 0)::float8 as "reservedUsdDay",
      (select coalesce(sum(calls), 0) from tenant_seconds where ${lastMinute})::integer as "callsMinute",
      (select coalesce(sum(tokens), 0) from tenant_seconds where ${lastMinute})::float8 as "tokensMinute"
    from today t left join spent s on true
    group by t.day
  `.execute(db)
  return rows[0] as TenantUse
}
