import { GroupCommit, readJobs, type Db, type JobRow } from '@askonce/store'
import type { Metrics } from '@askonce/telemetry'
import { patiently } from './patience.ts'

/** Few: every row may bring an answer of megabytes with it. */
const maxRows = 64
const concurrency = 3
const maxWaiting = 20_000

/** Reads of single jobs; concurrent ones share a statement. */
export class JobReader {
  private readonly group: GroupCommit<string, JobRow | null>

  constructor(db: Db, metrics: Metrics) {
    this.group = new GroupCommit({
      commit: async (ids) => {
        const rows = new Map((await readJobs(db, ids)).map((row) => [row.id, row]))
        return ids.map((id) => rows.get(id) ?? null)
      },
      maxRows,
      maxBytes: Number.POSITIVE_INFINITY,
      maxWaiting,
      concurrency,
      bytesOf: () => 0,
      onBatch: (rows) => metrics.groupRows.observe({ group: 'read' }, rows),
    })
  }

  /** The job with its answer's bytes; null: unknown, expired, or of another tenant, which must look the same. */
  async read(tenantId: string, id: string): Promise<JobRow | null> {
    const row = await patiently(this.group.submit(id))
    return row?.tenant_id === tenantId ? row : null
  }
}
