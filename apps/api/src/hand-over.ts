import type { DispatchItem, Dispatcher } from '@askonce/queue'
import { Outage, type Log } from '@askonce/telemetry'
import { atMost } from './patience.ts'

/** Most jobs of one bulk add. */
const maxItems = 1_000
/** What waits beyond this is dropped: the janitor finds that BullMQ does not hold it and hands it over again. */
const maxWaiting = 20_000
const flushMs = 2_000

/**
 * Hands committed jobs to BullMQ behind the back of the requests: an accepted job does not depend on it. While a bulk add
 * is under way the next one gathers: two half as large beside each other cost the embedded database half as much again.
 * Failures are logged once per outage; the janitor does it then.
 */
export class HandOver {
  private readonly dispatcher: Dispatcher
  private readonly outage: Outage
  private waiting: DispatchItem[] = []
  private underWay: Promise<void> | null = null

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
    while (this.underWay !== null) await this.underWay
  }

  private next(): void {
    if (this.underWay !== null || this.waiting.length === 0) return
    const items = this.waiting.slice(0, maxItems)
    this.waiting = this.waiting.slice(maxItems)
    this.underWay = this.run(items).finally(() => {
      this.underWay = null
      this.next()
    })
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
