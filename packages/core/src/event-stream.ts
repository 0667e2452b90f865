const lineFeed = 10
const carriageReturn = 13

/** Cuts a stream of bytes into server-sent events: however the bytes are chunked, the events are the same. */
export interface SseSplitter {
  /** The events that are complete with this chunk: their raw bytes, blank line included. Most are views of the chunk. */
  push: (chunk: Buffer) => Buffer[]
  /** Bytes since the last complete event, or since `take`. */
  restBytes: () => number
  /** Hands out what has come of an unfinished event, and forgets it: the event then comes without these bytes. */
  take: () => Buffer[]
  /** What has come since the last complete event; empty when there is nothing. To be called once, at the end. */
  rest: () => Buffer
}

/**
 * An event ends with a blank line. Lines end with CR, LF or CRLF, also mixed. After a blank line that ended with CR the next
 * byte decides whether it was CRLF, so it is waited for, unless the line before ended with CR alone.
 * Bytes of an unfinished event are kept as the chunks that they came in, and looked at once: an event of many megabytes in
 * small pieces costs no more than its length.
 */
export function createSplitter(): SseSplitter {
  let kept: Buffer[] = []
  let keptBytes = 0
  /** Whether nothing of the present line has come. */
  let empty = true
  /** Whether the line before, in the same event, ended with CR, and no LF has come behind it. */
  let afterCr = false
  /** Whether a blank line ended with CR and a LF may belong to it. */
  let undecided = false

  return {
    push: (chunk) => {
      const events: Buffer[] = []
      let start = 0
      const cut = (end: number): void => {
        const piece = chunk.subarray(start, end)
        events.push(kept.length === 0 ? piece : Buffer.concat([...kept, piece]))
        kept = []
        keptBytes = 0
        start = end
        empty = true
        afterCr = false
        undecided = false
      }
      for (let at = 0; at < chunk.length; at += 1) {
        const byte = chunk[at]
        if (undecided) {
          cut(byte === lineFeed ? at + 1 : at)
          if (byte === lineFeed) continue
        }
        if (byte === lineFeed) {
          if (empty && afterCr) afterCr = false
          else if (empty) cut(at + 1)
          else empty = true
        } else if (byte === carriageReturn) {
          if (!empty) afterCr = true
          else if (afterCr) cut(at + 1)
          else undecided = true
          empty = true
        } else {
          empty = false
          afterCr = false
        }
      }
      if (start < chunk.length) {
        kept.push(start === 0 ? chunk : chunk.subarray(start))
        keptBytes += chunk.length - start
      }
      return events
    },
    restBytes: () => keptBytes,
    take: () => {
      const taken = kept
      kept = []
      keptBytes = 0
      return taken
    },
    rest: () => Buffer.concat(kept),
  }
}

/** What a server-sent event says. */
export interface SseEvent {
  name: string | null
  /** Null when it has no data line, or empty data: by the standard it says nothing. */
  data: string | null
  /** Whether a line is neither a comment nor a field of an event: it says nothing in a stream, but a body of such lines is none. */
  foreign: boolean
}

const otherFields: ReadonlySet<string> = new Set(['', 'id', 'retry'])

/** Reads the fields of one event as the SSE standard has it. Broken UTF-8 becomes replacement characters. */
export function readEvent(raw: Buffer): SseEvent {
  let name: string | null = null
  let foreign = false
  const data: string[] = []
  // TextDecoder skips the byte order mark that the first event may begin with.
  for (const line of new TextDecoder().decode(raw).split(/\r\n|\r|\n/)) {
    const colon = line.indexOf(':')
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
    if (field === 'event') name = value
    else if (field === 'data') data.push(value)
    else if (!otherFields.has(field)) foreign = true
  }
  const text = data.join('\n')
  return { name, data: text === '' ? null : text, foreign }
}

/** Whether the data of an event is the end of an OpenAI stream; some servers write blanks around it. */
export function isDone(data: string | null): boolean {
  return data !== null && data.length < 32 && data.trim() === '[DONE]'
}

/** Events behind which nothing of an answer comes, as `[DONE]` is in other streams. */
const endings: ReadonlySet<string> = new Set(['message_stop', 'response.completed', 'response.incomplete'])
const endingWords = [...endings, '[DONE]']
/** One that names its type only inside its data is looked into up to this size: endings without a name are small. */
const lookedIntoBytes = 64 * 1024

/** Whether nothing of an answer comes behind an event. It may lack its blank line. */
export function endsStream(raw: Buffer): boolean {
  if (!endingWords.some((word) => raw.includes(word))) return false
  const first = raw.subarray(0, raw.indexOf('\n') + 1).toString()
  const name = /^event: ?(.*?)\r?\n$/.exec(first)?.[1]
  if (raw.length > lookedIntoBytes) return name !== undefined && endings.has(name)
  const event = readEvent(raw)
  if (event.data === null || isDone(event.data)) return event.data !== null
  const value = parse(event.data)
  return typeof value === 'object' && value !== null && endings.has(typeOf(value) ?? event.name ?? '')
}

/** Whether the data of an event that lacks its blank line is all there. */
export function isWholeEvent(raw: Buffer): boolean {
  const { data } = readEvent(raw)
  return isDone(data) || (data !== null && parse(data) !== undefined)
}

function typeOf(value: object): string | null {
  const { type } = value as { type?: unknown }
  return typeof type === 'string' && type !== '' ? type : null
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}
