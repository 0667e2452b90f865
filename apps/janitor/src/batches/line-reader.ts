import { readFilePart, type Db } from '@askonce/store'

const newline = 0x0a
const carriageReturn = 0x0d
const bom = Buffer.from('\uFEFF')

export type NextLine =
  | { kind: 'line'; bytes: Buffer; end: number }
  /** It is longer than allowed; nothing behind it can be read. */
  | { kind: 'too_long' }
  /** The file ends here, or is gone. `at`: the bytes that were there. */
  | { kind: 'end'; at: number }

/** The lines of a file, from a byte on, holding one piece and one line at a time. A line may span pieces. */
export class LineReader {
  private readonly db: Db
  private readonly fileId: string
  private readonly maxBytes: number
  /** The byte of the file that comes next. */
  private at: number
  private piece: Buffer = Buffer.alloc(0)
  private offset = 0

  constructor(db: Db, fileId: string, at: number, maxBytes: number) {
    this.db = db
    this.fileId = fileId
    this.at = at
    this.maxBytes = maxBytes
  }

  /** The next line without its end (LF or CRLF) and without a byte order mark; `end` is where the one after it begins. */
  async next(): Promise<NextLine> {
    const start = this.at
    const parts: Buffer[] = []
    for (;;) {
      if (this.offset >= this.piece.length && !(await this.load())) {
        return start === this.at ? { kind: 'end', at: this.at } : this.line(start, parts)
      }
      const found = this.piece.indexOf(newline, this.offset)
      const to = found < 0 ? this.piece.length : found
      parts.push(this.piece.subarray(this.offset, to))
      this.at += (found < 0 ? to : found + 1) - this.offset
      this.offset = found < 0 ? to : found + 1
      if (this.at - start > this.maxBytes) return { kind: 'too_long' }
      if (found >= 0) return this.line(start, parts)
    }
  }

  private line(start: number, parts: Buffer[]): NextLine {
    let bytes = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts)
    if (start === 0 && bytes.subarray(0, bom.length).equals(bom)) bytes = bytes.subarray(bom.length)
    if (bytes.at(-1) === carriageReturn) bytes = bytes.subarray(0, -1)
    return { kind: 'line', bytes, end: this.at }
  }

  private async load(): Promise<boolean> {
    const part = await readFilePart(this.db, this.fileId, this.at)
    if (part === null) return false
    this.piece = part.body
    this.offset = this.at - part.position
    return true
  }
}
