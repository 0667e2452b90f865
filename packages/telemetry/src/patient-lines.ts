import type { Writable } from 'node:stream'
import type { DestinationStream } from 'pino'

/** What waits for a reader that does not read. Beyond it lines are dropped and counted: the work goes on. */
const mostWaitingBytes = 1 << 20

/**
 * Lines to a pipe whose reader may hang. pino's own destination writes synchronously: to a full pipe it waits for ever, and the
 * process neither works nor hears a signal. `onDropped` is told how many lines were lost, once the reader reads again.
 */
export function patientLines(stream: Writable, onDropped: (count: number) => void): DestinationStream {
  let dropped = 0
  const drained = (): void => {
    const count = dropped
    dropped = 0
    onDropped(count)
  }
  return {
    write(line) {
      // The reader is gone for good.
      if (!stream.writable) return
      if (stream.writableLength + line.length <= mostWaitingBytes) return void stream.write(line)
      if (dropped === 0) stream.once('drain', drained)
      dropped += 1
    },
  }
}
