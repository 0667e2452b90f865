import { Skimmer } from './skimmer.ts'

const [lineFeed, carriageReturn, colon, blank] = [0x0a, 0x0d, 0x3a, 0x20]
const newline = Buffer.from('\n')
/** No field that counts has a longer name, and no name of an event is longer. */
const maxFieldChars = 8
const maxNameChars = 64

/** Reads a server-sent event that is too large to be kept, in pieces as they come. Its blank line at the end says nothing here. */
export class LargeEvent {
  readonly json = new Skimmer()
  name: string | null = null
  hasData = false
  #field = ''
  #inValue = false
  #atStart = false

  push(bytes: Buffer): void {
    // Looked for once in each piece: most have none.
    let nextReturn = -2
    for (let at = 0; at < bytes.length;) {
      const byte = bytes[at] ?? 0
      if (!this.#inValue) {
        at += 1
        if (byte === lineFeed || byte === carriageReturn) this.#field = ''
        else if (byte === colon) this.#beginValue()
        // The bytes of a byte order mark are no part of a name.
        else if (this.#field.length < maxFieldChars && byte < 0x80) this.#field += String.fromCharCode(byte)
        continue
      }
      if (this.#atStart && byte === blank) at += 1
      this.#atStart = false
      if (nextReturn !== -1 && nextReturn < at) nextReturn = bytes.indexOf(carriageReturn, at)
      const nextFeed = bytes.indexOf(lineFeed, at)
      const found = [nextFeed, nextReturn].filter((place) => place >= 0)
      const end = found.length === 0 ? bytes.length : Math.min(...found)
      this.#takeValue(bytes.subarray(at, end))
      if (end < bytes.length) {
        if (this.#field === 'data') this.json.push(newline)
        this.#inValue = false
        this.#field = ''
      }
      at = end + 1
    }
  }

  #beginValue(): void {
    this.#inValue = true
    this.#atStart = true
    if (this.#field === 'event') this.name = ''
    if (this.#field === 'data') this.hasData = true
  }

  #takeValue(value: Buffer): void {
    if (this.#field === 'data') this.json.push(value)
    else if (this.#field === 'event') this.name = ((this.name ?? '') + value.toString('latin1')).slice(0, maxNameChars)
  }
}
