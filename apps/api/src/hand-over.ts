import type { DispatchItem, Dispatcher } from '@askonce/queue'
import { Outage, type Log } from '@askonce/telemetry'
import { atMost } from './patience.ts'

/** Most jobs of one bulk add, and bulk adds under way at once. */
const maxItems = 1_000
const concurrency = 2
/** What waits beyond this is dropped: the janitor finds that BullMQ does not hold it and hands it over again. */
const maxWaiting = 20_000
const flushMs = 2_000

/**
 * Hands committed jobs to BullMQ behind the back of the requests: an accepted job does not depend on it. While a bulk add
 * is under way the next one gathers. Failures are logged once per outage; the janitor does it then.
 */
export class HandOver {
  private readonly dispatcher: Dispatcher
  private readonly outage: Outage
  private waiting: DispatchItem[] = []
  private readonly underWay = new Set<Promise<void>>()

  constructor(dispatcher: Dispatcher, log: Log) {
    this.dispatcher = dispatcher
    this.outage = new Outage(log, 'queue')
  }

  add(items: readonly DispatchItem[]): void {
    if (items.length === 0 || this.waiting.length + items.length > maxWaiting) return
    this.waiting.push(...items)
    this.next()
  }

  /** Waits briefly for what is under way. */
  async flush(): Promise<void> {
    await atMost(flushMs, this.drained())
  }

  private async drained(): Promise<void> {
    while (this.underWay.size > 0) await Promise.all(this.underWay)
  }

  private next(): void {
    while (this.waiting.length > 0 && this.underWay.size < concurrency) {
      const items = this.waiting.slice(0, maxItems)
      this.waiting = this.waiting.slice(maxItems)
      const run = this.run(items).finally(() => {
        this.underWay.delete(run)
        this.next()
      })
      this.underWay.add(run)
    }
  }

  private async run(items: readonly DispatchItem[]): Promise<void> {
    try {
      await this.dispatcher.dispatch(items)
      this.outage.worked()
    } catch (error) {
      this.outage.failed(error)
    }
  }
}
