import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { pauseAt } from '@askonce/config'
import { maxAnswerBytes } from '@askonce/core'
import { decodeRecord, encodeRecord, isRecordName, recordName, SpoolError, type SpoolRecord } from './spool-record.ts'

/** Why a record was set aside; also the ending of its new name. */
export type AsideAs = 'damaged' | 'unstorable' | 'orphan'

/** No answer that is stored is larger, so no record of ours is. */
const tooLargeBytes = maxAnswerBytes + 1024 ** 2
/** A temporary file that nobody has written to for this long belongs to a process that is gone. */
const abandonedMs = 60_000

/**
 * Paid answers that could not be stored yet, one file each. Written under a temporary name, synced and renamed, so that a final name
 * holds a whole record or, after an accident, something that its checksum gives away. Any number of processes may share the
 * directory: nobody owns a file, for delivering an answer twice is harmless.
 */
export class Spool {
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
  }

  /** Safe on disk when it resolves. Returns the file's path. Rejects with the error of the file system. */
  async write(record: SpoolRecord): Promise<string> {
    const path = join(this.directory, recordName(record.end))
    const temporary = join(this.directory, `.${randomUUID()}.tmp`)
    await this.makeDirectory()
    try {
      await writeSynced(temporary, await encodeRecord(record))
      if (pauseAt !== null) await pauseAt('worker.spooling')
      await rename(temporary, path)
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => undefined)
      throw error
    }
    await syncDirectory(this.directory)
    return path
  }

  /** Rejects when a record could not be written now. */
  async probe(): Promise<void> {
    const path = join(this.directory, `.${randomUUID()}.probe`)
    await this.makeDirectory()
    try {
      await writeSynced(path, [Buffer.from('askonce')])
    } finally {
      await rm(path, { force: true })
    }
  }

  /** Paths of what is named like a record, oldest job first. An absent directory is an empty one. */
  async list(): Promise<string[]> {
    const names = await this.names()
    return names
      .filter(isRecordName)
      .toSorted()
      .map((name) => join(this.directory, name))
  }

  /**
   * Rejects with a {@link SpoolError} when the file cannot be a record of that name, now or later; with another error when it could not
   * be read this time. The file's bytes are in memory once.
   */
  async read(path: string): Promise<SpoolRecord> {
    const record = await decodeRecord(await readBounded(path))
    if (basename(path) !== recordName(record.end)) {
      throw new SpoolError('misnamed', 'the record is of another attempt than the file’s name says')
    }
    return record
  }

  /** Of the file, in bytes; 0: it is gone. */
  async sizeOf(path: string): Promise<number> {
    return stat(path).then(
      ({ size }) => size,
      () => 0,
    )
  }

  /** Deletes a record whose answer is committed. Another process may have been faster. */
  async remove(path: string): Promise<void> {
    await rm(path, { force: true })
  }

  /** Keeps a file out of later scans, for a person to look at. Returns the new path; what has that name is not overwritten. */
  async setAside(path: string, as: AsideAs): Promise<string> {
    // For a person to see: not hidden, as temporary files are.
    const shown = join(this.directory, basename(path).replace(/^\./, ''))
    for (let number = 1; ; number += 1) {
      const to = number === 1 ? `${shown}.${as}` : `${shown}.${number}.${as}`
      const taken = await stat(to).then(
        () => true,
        () => false,
      )
      if (taken) continue
      await rename(path, to)
      return to
    }
  }

  /**
   * Looks through temporary files that nobody writes any more, which a kill leaves behind. A whole one becomes a record, an empty one
   * and a probe go, a torn one is given to `onTorn`. A process that was only frozen finds its file gone and writes it again.
   */
  async salvage(onTorn: (path: string, error: SpoolError) => Promise<void>): Promise<void> {
    for (const name of await this.names()) {
      if (!/^\.[0-9a-f-]{36}\.(?:tmp|probe)$/.test(name)) continue
      const path = join(this.directory, name)
      try {
        const { mtimeMs } = await stat(path)
        if (Date.now() - mtimeMs < abandonedMs) continue
        if (name.endsWith('.probe')) await rm(path, { force: true })
        else await rename(path, join(this.directory, recordName((await decodeRecord(await readBounded(path))).end)))
      } catch (error) {
        // Another process looks through the same directory.
        if (codeOf(error) === 'ENOENT') continue
        if (!(error instanceof SpoolError)) throw error
        if (error.fault === 'empty') await rm(path, { force: true })
        else await onTorn(path, error)
      }
    }
  }

  private async names(): Promise<string[]> {
    return readdir(this.directory).catch((error: unknown) => {
      if (codeOf(error) === 'ENOENT') return []
      throw error
    })
  }

  /** Each time: somebody may have cleaned up. */
  private async makeDirectory(): Promise<void> {
    const made = await mkdir(this.directory, { recursive: true, mode: 0o700 })
    if (made !== undefined) await syncDirectory(dirname(made))
  }
}

/** In our words, for a person who has to repair it. */
export function spoolTrouble(error: unknown): string {
  const code = codeOf(error)
  const words: Record<string, string> = {
    ENOSPC: 'the disk is full',
    EDQUOT: 'the disk quota is used up',
    EFBIG: 'the file would be larger than the process may write',
    EROFS: 'it is on a read-only file system',
    EACCES: 'this user may not write there',
    EPERM: 'this user may not write there',
    ENOENT: 'it is not there and cannot be made',
    EEXIST: 'something else has its name',
    ENOTDIR: 'something else has its name',
    EIO: 'the disk fails',
  }
  const text = words[code] ?? 'it cannot be written'
  return code === '' ? text : `${text} (${code})`
}

export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' ? code : ''
}

async function readBounded(path: string): Promise<Buffer> {
  let file: FileHandle
  try {
    // Not through a link, and not waiting for the other end of a pipe.
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (codeOf(error) === 'ELOOP') throw new SpoolError('not_a_file', 'it is a link')
    if (codeOf(error) === 'ENXIO') throw new SpoolError('not_a_file', 'it is not a regular file')
    // All others, too many open files for instance, say nothing about the file.
    if (codeOf(error) !== 'EACCES' && codeOf(error) !== 'EPERM') throw error
    throw new SpoolError('unreadable', `this user may not read it (${codeOf(error)})`)
  }
  try {
    const stats = await file.stat()
    if (!stats.isFile()) throw new SpoolError('not_a_file', 'it is not a regular file')
    if (stats.size > tooLargeBytes) throw new SpoolError('too_large', 'it is larger than any record can be')
    return await file.readFile()
  } finally {
    await file.close()
  }
}

async function writeSynced(path: string, pieces: readonly Buffer[]): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  try {
    for (const piece of pieces) await file.writeFile(piece)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Makes a rename in it durable. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
