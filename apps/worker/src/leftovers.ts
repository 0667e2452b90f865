import { setTimeout as sleep } from 'node:timers/promises'
import { maxAnswerBytes } from '@askonce/core'
import { errorReason, type Log } from '@askonce/telemetry'
import { AnswerInHand } from './answer-in-hand.ts'
import { ByteBudget } from './byte-budget.ts'
import type { Recorder } from './recorder.ts'
import type { Safekeeping } from './safekeeping.ts'
import { SpoolError } from './spool-record.ts'
import { codeOf, type Spool } from './spool.ts'

const lookEveryMs = 30_000
/** Records that are read and delivered at once: bounds what they take of the memory. */
const atOnce = 4

export interface LeftoversOptions {
  spool: Spool
  safekeeping: Safekeeping
  recorder: Recorder
  log: Log
  databaseId: () => Promise<string>
}

/**
 * Delivers what other processes left in the directory, at the start and every half minute. Whether the other one is dead is not asked:
 * a second delivery of an answer changes nothing, so no lock and no owner is needed.
 */
export class Leftovers {
  private readonly options: LeftoversOptions
  private readonly stopping = new AbortController()
  private readonly budget = new ByteBudget(maxAnswerBytes)
  /** Files that are done with but cannot be removed, and those that were told about and stay. */
  private readonly delivered = new Set<string>()
  private readonly told = new Set<string>()

  constructor(options: LeftoversOptions) {
    this.options = options
  }

  start(): void {
    void this.run()
  }

  /** Begins nothing more. What is under way ends with the recorder. */
  stop(): void {
    this.stopping.abort()
  }

  private async run(): Promise<void> {
    const { signal } = this.stopping
    while (!signal.aborted) {
      try {
        await this.look()
      } catch (error) {
        // A directory that cannot be read is told about by the check already.
        if (this.options.safekeeping.trouble === null) {
          this.options.log.event('loop.failed', { loop: 'spool', reason: errorReason(error) })
        }
      }
      await sleep(lookEveryMs, undefined, { signal }).catch(() => undefined)
    }
  }

  private async look(): Promise<void> {
    const { spool, safekeeping } = this.options
    await safekeeping.check()
    await spool.salvage((path, error) => this.setAside(path, error))
    const paths = await spool.list()
    safekeeping.found(paths)
    for (const known of [this.delivered, this.told]) {
      for (const path of known) if (!paths.includes(path)) known.delete(path)
    }
    const waiting = paths.filter((path) => !safekeeping.has(path))
    const deliverNext = async (): Promise<void> => {
      for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) {
        if (this.stopping.signal.aborted) return
        const next = path
        await this.budget.with(await this.options.spool.sizeOf(next), () => this.deliver(next))
      }
    }
    await Promise.all(Array.from({ length: atOnce }, deliverNext))
  }

  private async deliver(path: string): Promise<void> {
    const { spool, safekeeping, recorder, log, databaseId } = this.options
    if (this.delivered.has(path)) {
      if (await safekeeping.remove(path)) this.delivered.delete(path)
      return
    }
    if (this.told.has(path)) return
    try {
      const { database, tenant, end } = await spool.read(path)
      if (database !== (await databaseId())) {
        this.told.add(path)
        log.event('spool.foreign', { job_id: end.jobId, attempt: end.attempt, tenant, file: path })
        return
      }
      const recorded = await recorder.recordAnswer(new AnswerInHand(tenant, end, path))
      if (!recorded.committed) return
      // What the database did not take is never removed, even where it cannot be renamed.
      const taken = recorded.end.action === 'answer' && recorded.ended !== null
      ;(taken ? this.delivered : this.told).add(path)
    } catch (error) {
      if (error instanceof SpoolError) return this.setAside(path, error)
      // Another worker of the directory was faster.
      if (codeOf(error) === 'ENOENT') return
      // It says nothing about the file: the next look tries again.
      log.event('loop.failed', { loop: 'spool', reason: errorReason(error) })
    }
  }

  private async setAside(path: string, error: SpoolError): Promise<void> {
    if (this.told.has(path)) return
    // Where it cannot be renamed it stays, and is not told of again.
    this.told.add(path)
    await this.options.safekeeping.setDamagedAside(path, error)
  }
}
