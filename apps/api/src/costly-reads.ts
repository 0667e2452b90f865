import type { ServerResponse } from 'node:http'
import type { Db, ReadPool } from '@askonce/store'
import { patiently } from './patience.ts'
import { Problem } from './problem.ts'

/** Connections for reads whose cost follows what a tenant has stored: lists, sums, results. Nobody submits with them. */
export const readConnections = 4
/** Of one tenant at once: others find a place. */
const maxRunningOfTenant = 2
const maxWaitingOfTenant = 100
/** How long a read waits for its turn. */
const turnMs = 5_000

interface Waiting {
  begin: () => void
}

export interface CostlyRead {
  tenantId: string
  /** The answer that the read is for: when its client goes, the read ends. */
  reply: { raw: ServerResponse }
  /** Ends after so long. Absent: as any step of the database. */
  limitMs?: number
}

/** Reads that may be costly take turns, tenant by tenant, on connections of their own. */
export class CostlyReads {
  private readonly pool: ReadPool
  private readonly running = new Map<string, number>()
  /** The tenant whose turn is next comes first. */
  private readonly waiting = new Map<string, Waiting[]>()
  private places = readConnections

  constructor(pool: ReadPool) {
    this.pool = pool
  }

  /** @throws Problem `rate_limited` when too many of this tenant wait, or it waits too long */
  async run<Result>({ tenantId, reply, limitMs }: CostlyRead, read: (db: Db) => Promise<Result>): Promise<Result> {
    const ending = new AbortController()
    const end = (): void => ending.abort()
    reply.raw.once('close', end)
    // It may have gone while the one before was read.
    if (reply.raw.destroyed) end()
    try {
      await this.turn(tenantId)
      const reading = this.pool.run(ending.signal, read).finally(() => this.leave(tenantId))
      return await patiently(reading, end, limitMs)
    } catch (error) {
      // What the database says of a read that nobody waits for is no news of the database.
      if (reply.raw.destroyed) throw new Problem('rate_limited', 'The client has gone.', { cause: error })
      throw error
    } finally {
      reply.raw.off('close', end)
    }
  }

  private turn(tenantId: string): Promise<void> {
    if (this.mayBegin(tenantId)) {
      this.enter(tenantId)
      return Promise.resolve()
    }
    const queue = this.waiting.get(tenantId) ?? []
    if (queue.length >= maxWaitingOfTenant) return Promise.reject(tooMany())
    this.waiting.set(tenantId, queue)
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        begin: () => {
          clearTimeout(timer)
          resolve()
        },
      }
      const timer = setTimeout(() => {
        this.remove(tenantId, waiting)
        reject(tooMany())
      }, turnMs)
      queue.push(waiting)
    })
  }

  private mayBegin(tenantId: string): boolean {
    return this.places > 0 && (this.running.get(tenantId) ?? 0) < maxRunningOfTenant
  }

  private enter(tenantId: string): void {
    this.places -= 1
    this.running.set(tenantId, (this.running.get(tenantId) ?? 0) + 1)
  }

  private leave(tenantId: string): void {
    this.places += 1
    const left = (this.running.get(tenantId) ?? 1) - 1
    if (left > 0) this.running.set(tenantId, left)
    else this.running.delete(tenantId)
    for (const [next, [first]] of this.waiting) {
      if (first === undefined || !this.mayBegin(next)) continue
      this.remove(next, first)
      // Behind the others for its next one.
      const rest = this.waiting.get(next)
      if (rest !== undefined) {
        this.waiting.delete(next)
        this.waiting.set(next, rest)
      }
      this.enter(next)
      first.begin()
      return
    }
  }

  private remove(tenantId: string, waiting: Waiting): void {
    const queue = this.waiting.get(tenantId)
    const index = queue?.indexOf(waiting) ?? -1
    if (queue === undefined || index < 0) return
    queue.splice(index, 1)
    if (queue.length === 0) this.waiting.delete(tenantId)
  }
}

function tooMany(): Problem {
  return new Problem('rate_limited', 'Too many lists and sums are being read at once for this tenant.')
}
