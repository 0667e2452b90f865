import { GroupCommit, readAnswers, readJobs, type AnswerRow, type Db, type JobRow } from '@askonce/store'
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
  private readonly jobs: GroupCommit<string, JobRow | null>
  private readonly answers: GroupCommit<string, AnswerRow | null>

  constructor(db: Db, metrics: Metrics) {
    const group = <Row extends Owned>(readRows: (db: Db, ids: readonly string[]) => Promise<Row[]>) =>
      new GroupCommit<string, Row | null>({
        commit: async (ids) => {
          const rows = new Map((await readRows(db, ids)).map((row) => [row.id, row]))
          return ids.map((id) => rows.get(id) ?? null)
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
    return ofTenant(tenantId, this.jobs.submit(id))
  }

  /** The answer alone; null as for `read`. */
  readAnswer(tenantId: string, id: string): Promise<AnswerRow | null> {
    return ofTenant(tenantId, this.answers.submit(id))
  }
}

async function ofTenant<Row extends Owned>(tenantId: string, reading: Promise<Row | null>): Promise<Row | null> {
  const row = await patiently(reading)
  return row?.tenant_id === tenantId ? row : null
}
