/** One server-sent event. `id` is the last one that the stream named, of this event or of one before it. */
export interface SseEvent {
  event: string
  data: string
  id: string | null
}

/** Server-sent events from text that arrives in any pieces, by the rules of the HTML standard. */
export class SseParser {
  /** Milliseconds that the server asks to wait before a new connection; null if it did not. */
  retryMs: number | null = null
  #line = ''
  #data: string[] = []
  #event = ''
  #id: string | null = null
  /** The text ended in CR: an LF that follows belongs to it. */
  #afterReturn = false

  /** The events that this text completes. What no empty line follows is no event yet. */
  push(text: string): SseEvent[] {
    if (text === '') return []
    const events: SseEvent[] = []
    const lineEnd = /\r\n|[\r\n]/g
    let start = this.#afterReturn && text.startsWith('\n') ? 1 : 0
    this.#afterReturn = text.endsWith('\r')
    lineEnd.lastIndex = start
    for (let match = lineEnd.exec(text); match !== null; match = lineEnd.exec(text)) {
      const line = this.#line + text.slice(start, match.index)
      this.#line = ''
      start = lineEnd.lastIndex
      if (line !== '') this.#field(line)
      else if (this.#data.length > 0 || this.#event !== '') events.push(...this.#dispatch())
    }
    this.#line += text.slice(start)
    return events
  }

  /** The event that lacks nothing but its blank line; nothing more comes. */
  end(): SseEvent[] {
    return this.push('\n\n')
  }

  #field(line: string): void {
    const colon = line.indexOf(':')
    const name = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (name === 'data') this.#data.push(value)
    else if (name === 'event') this.#event = value
    else if (name === 'id' && !value.includes('\0')) this.#id = value
    else if (name === 'retry' && /^\d{1,7}$/.test(value)) this.retryMs = Number(value)
  }

  #dispatch(): SseEvent[] {
    const event = { event: this.#event === '' ? 'message' : this.#event, data: this.#data.join('\n'), id: this.#id }
    const isEvent = this.#data.length > 0
    this.#data = []
    this.#event = ''
    return isEvent ? [event] : []
  }
}

const endings = ['message_stop', 'response.completed', 'response.incomplete', 'response.failed']
const mentions = new RegExp(endings.map((name) => name.replace('.', '\\.')).join('|'))

/** Whether this event ends a streamed answer of one of the providers; without it the stream was cut. */
export function isEnding({ event, data }: Pick<SseEvent, 'event' | 'data'>): boolean {
  if (data.trim() === '[DONE]' || endings.includes(event)) return true
  // Servers that leave the name of the event out have it in the data. Few events mention one, so few are parsed.
  if (event !== 'message' || !mentions.test(data)) return false
  const { type } = (parseJson(data) ?? {}) as { type?: unknown }
  return typeof type === 'string' && endings.includes(type)
}

/** The value, or undefined where the text is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
