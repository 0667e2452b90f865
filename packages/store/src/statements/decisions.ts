import type { Db, DecisionRow } from '../tables.ts'

/** The decisions about a job, oldest first. They outlive the job, so the tenant is checked here. */
export function readDecisions(db: Db, tenantId: string, jobId: string): Promise<DecisionRow[]> {
  return db
    .selectFrom('decisions')
    .selectAll()
    .where('job_id', '=', jobId)
    .where('tenant_id', '=', tenantId)
    .orderBy('id')
    .execute()
}
