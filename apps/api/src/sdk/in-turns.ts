import { setImmediate as nextTurn } from 'node:timers/promises'
import type { SseSplitter } from '@askonce/core'

/** Looked at without a pause: at worst it is as many events. */
const sliceBytes = 8 * 1024
/** Events after which others get the processor: a millisecond. */
const turnEvents = 500

/** Cuts bytes of a stream into events, a few at a time: a quarter of a megabyte may hold as many events, which take a quarter of a second. */
export async function* inTurns(splitter: SseSplitter, bytes: Buffer): AsyncGenerator<Buffer[], void, undefined> {
  let events = 0
  for (let start = 0; start < bytes.length; start += sliceBytes) {
    const some = splitter.push(bytes.subarray(start, start + sliceBytes))
    yield some
    events += some.length
    if (events < turnEvents) continue
    events = 0
    await nextTurn()
  }
}
