import { AskonceConnectionError, AskonceError, errorFrom } from './errors.ts'
import { pause } from './pause.ts'
import { isEnding, parseJson, SseParser, type SseEvent } from './sse.ts'
import { Alarm, toError, type Transport } from './transport.ts'

/**
 * One event of a streamed answer: the provider's own, with the id that it has here (`<attempt>-<index>`); and last `job`, whose data is
 * the finished job as JSON.
 */
export type StreamEvent = SseEvent

export interface StreamOptions {
  /** Goes on after this event. */
  lastEventId?: string
  signal?: AbortSignal
  /** Without any byte for so long the connection is made anew; default five minutes. */
  idleMs?: number
}

const defaultIdleMs = 300_000
/** Before the next connection, unless the server names another time. */
const reconnectMs = 500

/**
 * Follows the events at `path` until the server ends them after their ending, over as many connections as that takes. So many
 * connections in a row that bring nothing as a request may have retries are an error.
 * @throws AskonceError for an error event that will not pass, else as the transport
 */
export async function* followStream(
  transport: Transport,
  path: string,
  { lastEventId, signal, idleMs = defaultIdleMs }: StreamOptions,
): AsyncGenerator<StreamEvent, void, undefined> {
  let last = lastEventId ?? null
  let hasEnded = false
  let fruitless = 0
  for (;;) {
    const connection = await transport.retrying({ signal }, () =>
      Connection.open(transport, path, { last, signal, idleMs }),
    )
    if (connection === null) return
    fruitless += 1
    try {
      for (let event = await connection.next(); event !== null; event = await connection.next()) {
        fruitless = 0
        last = event.id ?? last
        hasEnded ||= event.event === 'job' || isEnding(event)
        yield event
        // The last that comes: nobody waits for the connection to close.
        if (event.event === 'job') return
      }
    } catch (error) {
      // A server that stops says so in an event: another one goes on from there.
      const mayGoOn = error instanceof AskonceConnectionError || (error instanceof AskonceError && error.retryable)
      if (!mayGoOn || fruitless > transport.maxRetries) throw error
    } finally {
      connection.close()
    }
    if (hasEnded) return
    if (fruitless > transport.maxRetries) throw new AskonceConnectionError('The stream breaks off again and again.')
    await pause(connection.retryMs, signal)
  }
}

interface Place {
  last: string | null
  signal: AbortSignal | undefined
  idleMs: number
}

/** One connection to a stream of events. */
class Connection {
  readonly #alarm: Alarm
  readonly #signal: AbortSignal | undefined
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>
  readonly #parser = new SseParser()
  readonly #decoder = new TextDecoder()
  #events: SseEvent[] = []

  private constructor(body: ReadableStream<Uint8Array>, alarm: Alarm, signal: AbortSignal | undefined) {
    this.#reader = body.getReader()
    this.#alarm = alarm
    this.#signal = signal
  }

  /** Null where the server says that nothing follows (204). */
  static async open(transport: Transport, path: string, { last, signal, idleMs }: Place): Promise<Connection | null> {
    const alarm = new Alarm(idleMs, signal)
    try {
      const headers = Object.assign({ accept: 'text/event-stream' }, last === null ? {} : { 'last-event-id': last })
      const { body } = await transport.open({ method: 'GET', path, headers, signal }, alarm)
      if (body !== null) return new Connection(body, alarm, signal)
      alarm.stop()
      return null
    } catch (error) {
      alarm.stop()
      throw error
    }
  }

  /** Milliseconds to wait before the next connection. */
  get retryMs(): number {
    return this.#parser.retryMs ?? reconnectMs
  }

  /** The next event; null when the connection ended. @throws AskonceError for an error event, AskonceConnectionError */
  async next(): Promise<SseEvent | null> {
    for (;;) {
      const event = this.#events.shift()
      if (event !== undefined) {
        const error = errorOfEvent(event)
        if (error !== null) throw error
        return event
      }
      try {
        const { done, value } = await this.#reader.read()
        if (done) return null
        this.#alarm.restart()
        this.#events = this.#parser.push(this.#decoder.decode(value, { stream: true }))
      } catch (error) {
        throw toError(error, this.#signal)
      }
    }
  }

  close(): void {
    this.#alarm.stop()
  }
}

/** Errors come as an event of that name, or as OpenAI sends them: a message with nothing but `error`. */
function errorOfEvent({ event, data }: SseEvent): AskonceError | null {
  if (event !== 'error' && !data.startsWith('{"error"')) return null
  const document = parseJson(data)
  const outer = typeof document === 'object' && document !== null ? (document as Record<string, unknown>) : {}
  const inner = outer['error']
  if (event !== 'error' && (typeof inner !== 'object' || inner === null)) return null
  const body: Record<string, unknown> = Object.assign({}, outer, inner)
  // Anthropic's errors have a type in the place of a code.
  return errorFrom(Object.assign({ code: body['type'] }, body), { fallback: 'The stream ended with an error.' })
}
