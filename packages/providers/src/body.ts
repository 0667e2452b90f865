import { maxAnswerBytes } from '@askonce/core'

/** Up to this size the chunks are kept as they came, and put together at the end. */
const keptBytes = 4 * 1024 * 1024

/** The bytes of a response, as they come. */
export class Body {
  #chunks: Buffer[] = []
  #length = 0
  #whole: Buffer | null = null

  get length(): number {
    return this.#length
  }

  /**
   * Takes the next bytes; false when they are more than an answer may have, and then takes none of them. A large body goes into memory
   * for the largest answer at once: only the pages that are written exist, so it is neither copied again nor held twice.
   */
  add(chunk: Buffer): boolean {
    if (this.#length + chunk.length > maxAnswerBytes) return false
    if (this.#whole === null && this.#length + chunk.length > keptBytes) this.#move()
    if (this.#whole === null) this.#chunks.push(chunk)
    else chunk.copy(this.#whole, this.#length)
    this.#length += chunk.length
    return true
  }

  bytes(): Buffer {
    return this.#whole?.subarray(0, this.#length) ?? Buffer.concat(this.#chunks)
  }

  #move(): void {
    this.#whole = Buffer.allocUnsafeSlow(maxAnswerBytes)
    let at = 0
    for (const chunk of this.#chunks) at += chunk.copy(this.#whole, at)
    this.#chunks = []
  }
}
