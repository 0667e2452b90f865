import { maxAnswerBytes } from '@askonce/core'
import { Body } from './body.ts'
import { createDecoding, type Decoding } from './decode.ts'
import { headerValue, type BodyReader, type Broken, type Exchange, type Headers, type Standing } from './exchange.ts'
import { JsonText } from './json-text.ts'

/** How often it is looked whether what has come is enough. */
const lookMs = 125
/**
 * After so many looks in a row nothing more is waited for. A connection that ends as it should does so before the second look behind
 * the ending; two seconds are for usage and `[DONE]` behind the last finish reason, which some servers never send; five for the page of
 * a proxy that leaves the socket open.
 */
const enoughLooks = { ended: 2, whole: 16, refusal: 40 }
/** Of the body of a refusal; what comes behind is not read. */
const maxRefusalBytes = 1024 * 1024

export interface ReceptionEvents {
  /** What came is what the response is, although the connection goes on. */
  onEnough: (result: Exchange) => void
  /** The decoding is behind: no more bytes, until there is room. */
  onBehind: () => void
  onRoom: () => void
}

/** What has come of one response, and when it is enough. */
export class Reception {
  status: number | null = null
  headers: Headers = {}
  /** Grows with everything that comes. */
  events = 0
  readonly #answer: BodyReader
  readonly #refusal = new JsonText()
  readonly #on: ReceptionEvents
  readonly #body = new Body()
  #decoding: Decoding | null = null
  #timer: NodeJS.Timeout | null = null
  #looks = 0
  /** Length of the body, and parts of the answer, at the last look. */
  #lookedAt = 0
  #partsAt = 0
  #closed = false

  constructor(reader: BodyReader, on: ReceptionEvents) {
    this.#answer = reader
    this.#on = on
  }

  head(status: number, headers: Headers): void {
    this.events += 1
    this.status = status
    this.headers = headers
    this.#decoding = createDecoding(headers, {
      onData: (chunk) => this.#take(chunk),
      onRoom: () => this.#on.onRoom(),
    })
    const announced = Number(headerValue(headers, 'content-length') ?? 0)
    if (this.#isSuccess && this.#decoding === null && announced > maxAnswerBytes) this.#giveUpBody(status)
    else if (!this.#isSuccess) this.#look()
  }

  data(chunk: Buffer): void {
    this.events += 1
    if (this.#decoding === null) this.#take(chunk)
    else if (!this.#decoding.write(chunk)) this.#on.onBehind()
  }

  /** Whether bytes that have come are not decoded yet. */
  isBehind(): boolean {
    return this.#decoding?.isIdle() === false
  }

  /** What the response is, now that nothing more comes. `broken`: how the connection ended; null: as HTTP wants it. */
  async conclude(broken: Broken | null): Promise<Exchange> {
    await this.#decoding?.end()
    const { status, headers } = this
    if (status === null)
      return broken ?? { kind: 'broken', reason: 'lost', sent: true, detail: 'no response', status, headers }
    const fault = this.#decoding?.fault() ?? null
    const hasFailed = broken !== null || fault !== null
    if (this.#isSuccess && hasFailed) {
      this.#answer.end()
      if (this.#answer.standing() === 'open') {
        return broken ?? { kind: 'broken', reason: 'garbled', sent: true, detail: fault ?? '', status, headers }
      }
    }
    return { kind: 'response', status, headers, body: this.#body.bytes() }
  }

  /** Nothing that comes from now on counts. */
  close(): void {
    this.#closed = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#decoding?.destroy()
  }

  get #isSuccess(): boolean {
    return this.status !== null && this.status >= 200 && this.status <= 299
  }

  #take(chunk: Buffer): void {
    const { status } = this
    if (this.#closed || status === null) return
    this.events += 1
    if (!this.#isSuccess) {
      this.#body.add(chunk)
      this.#refusal.push(chunk)
      if (this.#body.length >= maxRefusalBytes) this.#settle(status)
      return
    }
    if (!this.#body.add(chunk)) {
      if (this.#answer.standing() === 'open') this.#giveUpBody(status)
      else this.#settle(status)
      return
    }
    this.#answer.push(chunk)
    this.#look()
  }

  /** Looks a moment later whether this is enough. */
  #look(): void {
    if (this.#timer !== null || this.#closed) return
    this.#timer = setTimeout(() => {
      this.#timer = null
      const { status } = this
      if (status === null) return
      const standing = this.#standing()
      // The next bytes look again.
      if (standing === 'open' && this.#isSuccess) {
        this.#looks = 0
        return
      }
      // A page has no ending: it is over when nothing more comes.
      if (standing === 'open' && this.#body.length > this.#lookedAt) this.#looks = 0
      this.#lookedAt = this.#body.length
      // Some servers name a finish reason in every part.
      const parts = this.#isSuccess ? this.#answer.parts() : 0
      if (standing === 'whole' && parts > this.#partsAt) this.#looks = 0
      this.#partsAt = parts
      this.#looks += 1
      if (this.#looks >= enoughLooks[standing === 'open' ? 'refusal' : standing]) this.#settle(status)
      else this.#look()
    }, lookMs)
  }

  #standing(): Standing {
    if (this.#isSuccess) return this.#answer.standing()
    return this.#refusal.isWhole() ? 'ended' : 'open'
  }

  #settle(status: number): void {
    this.#on.onEnough({ kind: 'response', status, headers: this.headers, body: this.#body.bytes() })
  }

  #giveUpBody(status: number): void {
    this.#on.onEnough({ kind: 'outsized', status, headers: this.headers })
  }
}
