import type { Dispatcher } from '@askonce/queue'
import { assertSchema, ping, SchemaVersionError, type Db } from '@askonce/store'
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
}

/** One look serves the askers of this long: probes come from everywhere and need no key. */
const cacheMs = 1_000
const limitMs = 3_000

/** Whether this process could serve now. */
export class Readiness {
  private readonly db: Db
  private readonly databaseUrl: string
  private readonly dispatcher: Dispatcher
  private schemaIsCurrent = false
  private underWay: Promise<Checks> | null = null
  private last: { checks: Checks; atMs: number } | null = null

  constructor(db: Db, databaseUrl: string, dispatcher: Dispatcher) {
    this.db = db
    this.databaseUrl = databaseUrl
    this.dispatcher = dispatcher
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
    const [database, schema, queue] = await Promise.all([
      attempt(() => ping(this.db)),
      attempt(() => this.checkSchema()),
      attempt(() => this.dispatcher.ping()),
    ])
    const checks = { database, schema, queue }
    this.last = { checks, atMs: performance.now() }
    return checks
  }

  /** Once it has been right, it stays right for this process: migrations only go forward, by somebody who stops it first. */
  private async checkSchema(): Promise<void> {
    if (this.schemaIsCurrent) return
    await assertSchema(this.databaseUrl)
    this.schemaIsCurrent = true
  }
}

async function attempt(run: () => Promise<void>): Promise<Check> {
  try {
    await patiently(run(), undefined, limitMs)
    return { ok: true, reason: null }
  } catch (error) {
    return { ok: false, reason: error instanceof SchemaVersionError ? error.message : errorReason(error) }
  }
}
