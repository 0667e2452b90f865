import type { Waker } from '@askonce/queue'
import { assertSchema, SchemaVersionError, StoreRefusalError, type StoreProbe } from '@askonce/store'
import { errorReason } from '@askonce/telemetry'
import { patiently } from './patience.ts'

interface Check {
  ok: boolean
  /** Our own words, or class and code of an error: anybody may read it. */
  reason: string | null
}

export interface Checks {
  database: Check
  schema: Check
  queue: Check
  /** Of the worker in this process; absent where there is none. */
  worker?: Check
}

export interface ReadinessOptions {
  probe: StoreProbe
  /** Why the last submissions were not stored; null: they were, or there were none lately. */
  submissionTrouble: () => Error | null
  databaseUrl: string
  waker: Waker
  workerProblems: (() => Promise<string[]>) | null
}

/** The message is our own words. */
class WorkerTroubleError extends Error {}

/** One look serves the askers of this long: probes come from everywhere and need no key. */
const cacheMs = 1_000
const limitMs = 3_000

/** Whether this process could serve now. */
export class Readiness {
  private readonly options: ReadinessOptions
  private schemaIsCurrent = false
  private underWay: Promise<Checks> | null = null
  private last: { checks: Checks; atMs: number } | null = null

  constructor(options: ReadinessOptions) {
    this.options = options
  }

  /** Never rejects, and takes three seconds at most. */
  async check(): Promise<Checks> {
    if (this.last !== null && performance.now() - this.last.atMs < cacheMs) return this.last.checks
    this.underWay ??= this.look().finally(() => {
      this.underWay = null
    })
    return this.underWay
  }

  private async look(): Promise<Checks> {
    const { waker, workerProblems } = this.options
    const [database, schema, queue, worker] = await Promise.all([
      attempt(() => this.checkDatabase()),
      attempt(() => this.checkSchema()),
      attempt(() => waker.ping()),
      workerProblems === null ? null : attempt(() => refuseProblems(workerProblems)),
    ])
    const checks = { database, schema, queue, ...(worker === null ? {} : { worker }) }
    this.last = { checks, atMs: performance.now() }
    return checks
  }

  private async checkDatabase(): Promise<void> {
    await this.options.probe.check()
    // The probe writes no job: what submissions met a moment ago may be what it cannot see.
    const trouble = this.options.submissionTrouble()
    if (trouble !== null) throw trouble
  }

  /** Once it has been right, it stays right for this process: migrations only go forward, and are harmless to the version before. */
  private async checkSchema(): Promise<void> {
    if (this.schemaIsCurrent) return
    await assertSchema(this.options.databaseUrl, { newerIsFine: true })
    this.schemaIsCurrent = true
  }
}

async function refuseProblems(read: () => Promise<string[]>): Promise<void> {
  const problems = await read()
  if (problems.length > 0) throw new WorkerTroubleError(problems.join('; '))
}

async function attempt(run: () => Promise<void>): Promise<Check> {
  try {
    await patiently(run(), undefined, limitMs)
    return { ok: true, reason: null }
  } catch (error) {
    const ours = [SchemaVersionError, WorkerTroubleError, StoreRefusalError].some((own) => error instanceof own)
    return { ok: false, reason: ours ? (error as Error).message : errorReason(error) }
  }
}
