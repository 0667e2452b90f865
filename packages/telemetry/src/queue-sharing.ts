import type { Log } from './log.ts'

const shared = new WeakSet<Log>()

/**
 * Says that another system was found on our queue (`reason`), or is there no longer (null). Each part of a process finds it out by itself;
 * the log they share says it once.
 */
export function tellQueueShared(log: Log, reason: string | null): void {
  if ((reason !== null) === shared.has(log)) return
  if (reason === null) {
    shared.delete(log)
    log.event('queue.unshared')
  } else {
    shared.add(log)
    log.event('queue.shared', { reason })
  }
}
