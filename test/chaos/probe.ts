import { setTimeout as sleep } from 'node:timers/promises'
import type { Client, Submission } from './client.ts'
import type { Aftermath } from './faults.ts'
import type { Fleet } from './fleet.ts'

/** How often a fresh key is sent while the system does not answer. */
const everyMs = 500
const lookEveryMs = 100

/**
 * Attempts that a lost process held and nobody has taken over: still open, or ended and their job not yet claimed again. Jobs of tenants with
 * limits are claimed again when the limits allow it, which says nothing of recovery.
 */
const leftBehind = `
  select count(*)::int as left
  from attempts a
  join workers w on w.id = a.worker_id
  left join jobs j on j.id = a.job_id
  where w.pid = any($1) and a.started_at <= to_timestamp($2) and (a.finished_at is null or (a.outcome = 'lost' and j.state = 'queued' and j.attempt = a.attempt and j.tenant_id = 'default'))`

/** Finds out when the system works again. Its keys are jobs like any other, and the checker knows them. */
export class Probe {
  readonly submissions: Submission[] = []
  private readonly fleet: Fleet
  private readonly client: Client
  private readonly underWay = new Set<Promise<void>>()

  constructor(fleet: Fleet, client: Client) {
    this.fleet = fleet
    this.client = client
  }

  /**
   * Milliseconds from now until a fresh key has gone through the whole system (submitted to an API, run by a worker, its
   * answer stored and shown), and until what lost processes had in hand runs again, is held or has ended. Null: not within
   * `limitMs`.
   */
  async untilRecovered({ lostPids = [], address }: Aftermath, limitMs: number): Promise<number | null> {
    const began = performance.now()
    const results = await Promise.all([this.untilAnswered(address, limitMs), this.untilTakenOver(lostPids, limitMs)])
    return results.every(Boolean) ? Math.round(performance.now() - began) : null
  }

  /** Resolves when every request of the probe has been answered or given up. */
  async idle(): Promise<void> {
    await Promise.all(this.underWay)
  }

  /** Sends a fresh key every half second until one of them is answered. */
  private async untilAnswered(address: string | undefined, limitMs: number): Promise<boolean> {
    const giveUpAt = performance.now() + limitMs
    const answered = new AbortController()
    const send = async (): Promise<void> => {
      const one: Submission = { key: `probe-${this.submissions.length}`, policy: 'rerun', maxPaid: 2 }
      this.submissions.push(one)
      await this.client.plan([one])
      const job = await this.client.submit(one, 30, address)
      if (job?.state === 'succeeded') answered.abort()
    }
    for (let next = 0; !answered.signal.aborted;) {
      if (performance.now() > giveUpAt) return false
      if (performance.now() >= next) {
        next = performance.now() + everyMs
        const sent = send().finally(() => this.underWay.delete(sent))
        this.underWay.add(sent)
      }
      await sleep(20)
    }
    return true
  }

  private async untilTakenOver(pids: readonly number[], limitMs: number): Promise<boolean> {
    const giveUpAt = performance.now() + limitMs
    // A worker that thaws goes on under the same pid: what it claims from now on is not meant. One machine, one clock.
    const values = [pids, Date.now() / 1000]
    while (pids.length > 0) {
      const [row] = await this.fleet.sql<{ left: number }>(leftBehind, values).catch(() => [])
      if (row?.left === 0) return true
      if (performance.now() > giveUpAt) return false
      await sleep(lookEveryMs)
    }
    return true
  }
}
