import { createHash } from 'node:crypto'
import { appendUpload, beginUpload, dropUpload, finishUpload, type Db, type FileRow } from '@askonce/store'
import { patiently } from '../../patience.ts'
import { Problem } from '../../problem.ts'

/** A file is kept in pieces of this size: what one upload holds in memory. */
const pieceBytes = 1024 * 1024

/** Writes what arrives into the database, piece by piece, at constant memory. Nobody sees it before it is finished. */
export class UploadWriter {
  readonly id: string
  private readonly db: Db
  private readonly hash = createHash('sha256')
  private pieces: Buffer[] = []
  private waiting = 0
  private written = 0

  private constructor(db: Db, id: string) {
    this.db = db
    this.id = id
  }

  static async begin(db: Db, file: Parameters<typeof beginUpload>[1]): Promise<UploadWriter> {
    await patiently(beginUpload(db, file))
    return new UploadWriter(db, file.id)
  }

  /** Bytes so far. */
  get bytes(): number {
    return this.written + this.waiting
  }

  /** Takes bytes; resolves when there is room for more. The caller stops reading until then. */
  async add(bytes: Buffer): Promise<void> {
    this.hash.update(bytes)
    this.pieces.push(bytes)
    this.waiting += bytes.length
    while (this.waiting >= pieceBytes) await this.flush(pieceBytes)
  }

  private async flush(most: number): Promise<void> {
    const all = this.pieces.length === 1 ? (this.pieces[0] as Buffer) : Buffer.concat(this.pieces)
    const piece = all.subarray(0, most)
    const rest = all.subarray(most)
    this.pieces = rest.length > 0 ? [rest] : []
    this.waiting = rest.length
    if (!(await patiently(appendUpload(this.db, this.id, this.written, piece)))) throw interrupted()
    this.written += piece.length
  }

  /** Writes what is left. Returns size and digest of the whole. */
  async close(): Promise<{ bytes: number; sha256: Buffer }> {
    if (this.waiting > 0) await this.flush(this.waiting)
    return { bytes: this.written, sha256: this.hash.digest() }
  }

  /** Makes it a file. */
  async finish(file: { purpose: string; filename: string; ttlSeconds: number | null }): Promise<FileRow> {
    const { bytes, sha256 } = await this.close()
    const row = await patiently(finishUpload(this.db, { id: this.id, ...file, bytes, sha256 }))
    if (row === null) throw interrupted()
    return row
  }

  /** Gives it up. Never rejects: what cannot be deleted now is swept later. */
  async drop(): Promise<void> {
    await dropUpload(this.db, this.id).catch(() => undefined)
  }
}

function interrupted(): Problem {
  return new Problem('unavailable', 'The upload was interrupted for too long and has been given up. Send it again.')
}
