import { GroupCommit, readAnswers, readJobs, type AnswerRow, type Db, type JobRef, type JobRow } from '@askonce/store'
import type { Metrics } from '@askonce/telemetry'
import { patiently } from './patience.ts'

/** Few: every row may bring an answer of megabytes with it. */
const maxRows = 64
const concurrency = 3
const maxWaiting = 20_000

interface Owned {
  id: string
  tenant_id: string
}

/** Reads of single jobs; concurrent ones share a statement. */
export class JobReader {
  private readonly jobs: GroupCommit<JobRef, JobRow | null>
  private readonly answers: GroupCommit<JobRef, AnswerRow | null>

  constructor(db: Db, metrics: Metrics) {
    const group = <Row extends Owned>(readRows: (db: Db, refs: readonly JobRef[]) => Promise<Row[]>) =>
      new GroupCommit<JobRef, Row | null>({
        commit: async (refs) => {
          const rows = new Map((await readRows(db, refs)).map((row) => [row.id, row]))
          return refs.map(({ tenantId, id }) => {
            const row = rows.get(id)
            return row?.tenant_id === tenantId ? row : null
          })
        },
        maxRows,
        maxBytes: Number.POSITIVE_INFINITY,
        maxWaiting,
        concurrency,
        bytesOf: () => 0,
        onBatch: (rows) => metrics.groupRows.observe({ group: 'read' }, rows),
      })
    this.jobs = group(readJobs)
    this.answers = group(readAnswers)
  }

  /** The job with its answer's bytes; null: unknown, expired, or of another tenant, which must look the same. */
  read(tenantId: string, id: string): Promise<JobRow | null> {
    return patiently(this.jobs.submit({ tenantId, id }))
  }

  /** The answer alone; null as for `read`. */
  readAnswer(tenantId: string, id: string): Promise<AnswerRow | null> {
    return patiently(this.answers.submit({ tenantId, id }))
  }
}
