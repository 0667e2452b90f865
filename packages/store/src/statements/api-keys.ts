import type { Db, Scope } from '../tables.ts'
import type { SubmissionLimits } from '@askonce/core'
import type { TenantDefaults } from './tenants.ts'

export interface ApiKey {
  id: string
  tenantId: string
  name: string
  hint: string
  scopes: Scope[]
  createdAt: Date
  revokedAt: Date | null
}

const selection = [
  'id',
  'tenant_id as tenantId',
  'name',
  'hint',
  'scopes',
  'created_at as createdAt',
  'revoked_at as revokedAt',
] as const

/** A key that somebody uses. */
export interface FoundApiKey extends ApiKey {
  /** Whether its tenant wants keys that are derived from requests. */
  deriveKeys: boolean
  /** What holds for its tenant's submissions that do not say otherwise. */
  defaults: TenantDefaults
  /** What its tenant's submissions have to be looked at for. */
  limits: SubmissionLimits
}

/** The key with this SHA-256, if it has not been revoked. */
export async function findApiKey(db: Db, keyHash: Buffer): Promise<FoundApiKey | null> {
  const row = await db
    .selectFrom('api_keys as k')
    .innerJoin('tenants as t', 't.id', 'k.tenant_id')
    .select([
      'k.id',
      'k.tenant_id as tenantId',
      'k.name',
      'k.hint',
      'k.scopes',
      'k.created_at as createdAt',
      'k.revoked_at as revokedAt',
      't.derive_keys as deriveKeys',
      't.on_uncertain as onUncertain',
      't.max_attempts as maxAttempts',
      't.max_paid_attempts as maxPaidAttempts',
      't.ttl_seconds as ttlSeconds',
      't.timeout_seconds as timeoutSeconds',
      't.max_queued as maxQueued',
      't.submissions_per_second as submissionsPerSecond',
      't.budget_day_usd as budgetDayUsd',
      't.budget_month_usd as budgetMonthUsd',
    ])
    .where('k.key_hash', '=', keyHash)
    .where('k.revoked_at', 'is', null)
    .executeTakeFirst()
  if (row === undefined) return null
  const { onUncertain, maxAttempts, maxPaidAttempts, ttlSeconds, timeoutSeconds, ...rest } = row
  const { maxQueued, submissionsPerSecond, budgetDayUsd, budgetMonthUsd, ...key } = rest
  return {
    ...key,
    defaults: { onUncertain, maxAttempts, maxPaidAttempts, ttlSeconds, timeoutSeconds },
    limits: { maxQueued, submissionsPerSecond, budgetDayUsd, budgetMonthUsd },
  }
}

export interface NewApiKey {
  tenantId: string
  name: string
  keyHash: Buffer
  hint: string
  scopes: Scope[]
}

/** Adds a key, and its tenant when it is new. A key that exists stays as it is, and a revoked one stays revoked: whoever asks looks at that. */
export function createApiKey(db: Db, key: NewApiKey): Promise<ApiKey> {
  return db.transaction().execute(async (transaction) => {
    await transaction
      .insertInto('tenants')
      .values({ id: key.tenantId })
      .onConflict((conflict) => conflict.doNothing())
      .execute()
    return (
      transaction
        .insertInto('api_keys')
        .values({
          tenant_id: key.tenantId,
          name: key.name,
          key_hash: key.keyHash,
          hint: key.hint,
          scopes: key.scopes,
          revoked_at: null,
        })
        // Changes nothing: it makes the statement return the row that is there.
        .onConflict((conflict) =>
          conflict.column('key_hash').doUpdateSet((expression) => ({ key_hash: expression.ref('excluded.key_hash') })),
        )
        .returning(selection)
        .executeTakeFirstOrThrow()
    )
  })
}

/** Every key, newest first, revoked ones included. */
export function listApiKeys(db: Db): Promise<ApiKey[]> {
  return db.selectFrom('api_keys').select(selection).orderBy('created_at', 'desc').execute()
}

/** Revokes a key by id; null: no such key. One that is revoked already keeps its date. */
export async function revokeApiKey(db: Db, id: string): Promise<ApiKey | null> {
  const row = await db
    .updateTable('api_keys')
    .set((expression) => ({ revoked_at: expression.fn.coalesce('revoked_at', expression.fn<Date>('now')) }))
    .where('id', '=', id)
    .returning(selection)
    .executeTakeFirst()
  return row ?? null
}
