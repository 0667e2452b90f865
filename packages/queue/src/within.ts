import { within as inTime } from '@askonce/timing'
import { QueueTimeoutError } from './errors.ts'

/** Rejects when `promise` takes longer than `timeoutMs`; what it does later is ignored. */
export function within<T>(promise: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  return inTime(promise, timeoutMs, () => new QueueTimeoutError(what, timeoutMs))
}
