import { retryContention } from './errors.ts'
import { readByKeys, type KeyRow } from './statements/read-jobs.ts'
import { kindOf, type SubmitResult } from './submit.ts'
import type { Db } from './tables.ts'

/** A body under a key, by what the bytes and all that decides their meaning hash to. */
export interface RecallItem {
  tenantId: string
  key: string
  digest: Buffer
}

/**
 * What the key of a submission has. `settled`: the row was made by these bytes, and they start nothing: what the submission gets without being
 * parsed. `present`: there is a row, and what it means for these bytes only the parsed request tells. `absent`: there is no row.
 */
export type Recalled = { kind: 'settled'; result: SubmitResult & { job: KeyRow } } | { kind: 'present' | 'absent' }

/** Looks up submissions by the bytes of their bodies. It reads and changes nothing. */
export async function recallBatch(db: Db, items: readonly RecallItem[]): Promise<Recalled[]> {
  const rows = await retryContention(() =>
    readByKeys(
      db,
      items.map((item) => item.tenantId),
      items.map((item) => item.key),
    ),
  )
  const rowByKey = new Map(rows.map((row) => [`${row.tenant_id}\n${row.idempotency_key}`, row]))
  return items.map(({ tenantId, key, digest }) => {
    const row = rowByKey.get(`${tenantId}\n${key}`)
    if (row === undefined) return { kind: 'absent' }
    return isSettledBy(row, digest) ? { kind: 'settled', result: { kind: kindOf(row), job: row } } : { kind: 'present' }
  })
}

/** Whether these bytes made the row and start nothing: what expired is absent, and what failed may run again. */
function isSettledBy(row: KeyRow, digest: Buffer): boolean {
  const { body_digest: known, owner_batch: batch, state, expired, may_run_unasked: mayRun } = row
  if (known === null || expired || batch !== null || (state === 'failed' && mayRun)) return false
  return known.subarray(0, digest.length).equals(digest)
}
