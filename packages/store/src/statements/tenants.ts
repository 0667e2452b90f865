import type { OnUncertain } from '@askonce/core'
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

export interface Tenant extends TenantDefaults {
  id: string
  createdAt: Date
  /** Whether requests of SDKs that name no key get one that is derived from what they ask. */
  deriveKeys: boolean
}

const defaults = [
  'on_uncertain as onUncertain',
  'max_attempts as maxAttempts',
  'max_paid_attempts as maxPaidAttempts',
  'ttl_seconds as ttlSeconds',
  'timeout_seconds as timeoutSeconds',
] as const

const selection = ['id', 'created_at as createdAt', 'derive_keys as deriveKeys', ...defaults] as const

/** Every tenant, by name. */
export function listTenants(db: Db): Promise<Tenant[]> {
  return db.selectFrom('tenants').select(selection).orderBy('id').execute()
}

/** {@link noDefaults} for a tenant that is not there. */
export async function readTenantDefaults(db: Db, tenantId: string): Promise<TenantDefaults> {
  const row = await db.selectFrom('tenants').select(defaults).where('id', '=', tenantId).executeTakeFirst()
  return row ?? noDefaults
}

/** Changes what is given; null takes a default away, what is left out or undefined stays. The answer is null if there is no such tenant. */
export async function setTenant(
  db: Db,
  tenantId: string,
  given: { [Name in keyof Omit<Tenant, 'id' | 'createdAt'>]?: Tenant[Name] | undefined },
): Promise<Tenant | null> {
  const columns = {
    derive_keys: given.deriveKeys,
    on_uncertain: given.onUncertain,
    max_attempts: given.maxAttempts,
    max_paid_attempts: given.maxPaidAttempts,
    ttl_seconds: given.ttlSeconds,
    timeout_seconds: given.timeoutSeconds,
  }
  const row = await db
    .updateTable('tenants')
    .set(Object.fromEntries(Object.entries(columns).filter(([, value]) => value !== undefined)))
    .where('id', '=', tenantId)
    .returning(selection)
    .executeTakeFirst()
  return row ?? null
}
