const lf = 10
const cr = 13

/** One server-sent event as it was sent, the empty line at its end included. Only comments make one too. */
export interface RawEvent {
  bytes: Buffer
}

/**
 * Cuts a stream of server-sent events into its events, whatever pieces it comes in. All bytes that come out are those that went in,
 * in the same order. Lines end with LF, CRLF or CR; of a CRLF that ends an event after its CR, the LF begins the next one, where it is
 * one more empty line.
 */
export class EventSplitter {
  private pieces: Buffer[] = []
  private lineIsEmpty = true
  private hasLines = false
  private afterCr = false

  /** The events that this piece completes. */
  push(chunk: Buffer): RawEvent[] {
    const events: RawEvent[] = []
    let start = 0
    for (let index = 0; index < chunk.length; index += 1) {
      const byte = chunk[index]
      if (byte !== lf && byte !== cr) {
        this.lineIsEmpty = false
        this.afterCr = false
        continue
      }
      const secondHalf = byte === lf && this.afterCr
      this.afterCr = byte === cr
      if (secondHalf) continue
      if (!this.lineIsEmpty) {
        this.hasLines = true
        this.lineIsEmpty = true
      } else if (this.hasLines) {
        // Of CRLF the other half belongs to this event too, when it is here already.
        const end = byte === cr && chunk[index + 1] === lf ? index + 2 : index + 1
        this.pieces.push(chunk.subarray(start, end))
        events.push({ bytes: this.pieces.length === 1 ? (this.pieces[0] as Buffer) : Buffer.concat(this.pieces) })
        this.pieces = []
        this.hasLines = false
        start = end
      }
    }
    if (start < chunk.length) this.pieces.push(chunk.subarray(start))
    return events
  }

  /** What has come of an event that is not complete. */
  rest(): Buffer {
    return Buffer.concat(this.pieces)
  }
}

/** The `data` of an event: its lines joined by LF; null: it has none. */
export function eventData({ bytes }: RawEvent): string | null {
  const lines = bytes
    .toString()
    .replace(/^\uFEFF/, '')
    .split(/\r\n|\n|\r/)
    .filter((line) => line === 'data' || line.startsWith('data:'))
    .map((line) => line.slice(5).replace(/^ /, ''))
  return lines.length === 0 ? null : lines.join('\n')
}
