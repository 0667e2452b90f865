import type { Db } from '../tables.ts'

export interface Tenant {
  id: string
  createdAt: Date
  /** Whether requests of SDKs that name no key get one that is derived from what they ask. */
  deriveKeys: boolean
}

const selection = ['id', 'created_at as createdAt', 'derive_keys as deriveKeys'] as const

/** Every tenant, by name. */
export function listTenants(db: Db): Promise<Tenant[]> {
  return db.selectFrom('tenants').select(selection).orderBy('id').execute()
}

/** Null: there is no such tenant. */
export async function setDeriveKeys(db: Db, tenantId: string, deriveKeys: boolean): Promise<Tenant | null> {
  const row = await db
    .updateTable('tenants')
    .set({ derive_keys: deriveKeys })
    .where('id', '=', tenantId)
    .returning(selection)
    .executeTakeFirst()
  return row ?? null
}
