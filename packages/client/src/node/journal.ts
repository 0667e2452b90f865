import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { KeysByDigest } from '../key-store.ts'

/** The first line of every file: what does not have it is not ours, and is not touched. */
const header = '{"askonce":"idempotency keys","version":1}\n'
/** Lines since the last rewrite, at least, before the file is rewritten while it is in use. */
const minLines = 20_000

type Line = { add: string; digest: string } | { done: string; digest: string }

interface Waiting {
  line: Line
  resolve: () => void
  reject: (error: unknown) => void
}

/**
 * A file of lines, one for each key that was made and one for each that is done. Lines are appended by one writer, many at a
 * time; a key counts once its line is on the disk. A line that a crash tore was never acknowledged and is skipped.
 */
export class Journal {
  /** Keys that are made and not done. */
  readonly keys = new KeysByDigest()
  readonly #path: string
  #handle: FileHandle | null = null
  #waiting: Waiting[] = []
  #writer: Promise<void> | null = null
  #lines = 0
  /** A write failed, maybe in the middle of a line: the next one begins anew. */
  #isTorn = false

  /** Opens or makes the file, and rewrites it with what is left. @throws Error when it is not ours or cannot be written */
  constructor(path: string) {
    this.#path = path
    this.#read()
    this.#rewrite()
  }

  /** Resolves when the line is written; that of a new key when it is on the disk. */
  append(line: Line): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ line, resolve, reject })
      this.#writer ??= this.#write()
    })
  }

  /** Writes what waits, and closes the file. */
  async close(): Promise<void> {
    await this.#writer
    await this.#handle?.close()
    this.#handle = null
  }

  async #write(): Promise<void> {
    // What comes in this turn of the loop goes with it: one fsync for many keys.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const batch = this.#waiting
      this.#waiting = []
      try {
        await this.#store(batch.map(({ line }) => line))
        for (const { resolve } of batch) resolve()
        await this.#tidy()
      } catch (error) {
        this.#isTorn = true
        for (const { reject } of batch) reject(error)
      }
    }
    this.#writer = null
  }

  async #store(lines: readonly Line[]): Promise<void> {
    this.#handle ??= await open(this.#path, 'a', 0o600)
    const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('')
    await this.#handle.appendFile(this.#isTorn ? `\n${text}` : text)
    // A key that is lost is a second payment. A "done" that is lost is an answer read once more for nothing.
    if (lines.some((line) => 'add' in line)) await this.#handle.datasync()
    this.#isTorn = false
    this.#lines += lines.length
    for (const line of lines) this.#apply(line)
  }

  #apply(line: Line): void {
    if ('add' in line) this.keys.add(line.digest, line.add)
    else this.keys.remove(line.digest, line.done)
  }

  /** A process that runs for months would fill the disk. What fails here has failed nobody: the old file is still whole. */
  async #tidy(): Promise<void> {
    if (this.#lines < minLines || this.#lines < 4 * this.keys.size) return
    this.#lines = 0
    const old = this.#handle
    try {
      this.#rewrite()
      // What is appended from here on goes to the new file.
      this.#handle = null
      await old?.close()
    } catch {}
  }

  #read(): void {
    const text = readIfThere(this.#path)
    if (text === null) return
    if (!text.startsWith(header)) throw new Error(`${this.#path} is not a file of keys; it was left as it is`)
    for (const part of text.slice(header.length).split('\n')) {
      const line = readLine(part)
      if (line !== null) this.#apply(line)
    }
  }

  /** A new file, on the disk, in the place of the old one: a crash leaves one or the other. */
  #rewrite(): void {
    const temporary = `${this.#path}.new`
    const lines = [...this.keys].map(({ digest, key }) => `${JSON.stringify({ add: key, digest } satisfies Line)}\n`)
    const file = openSync(temporary, 'w', 0o600)
    try {
      writeAll(file, Buffer.from(header + lines.join('')))
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(temporary, this.#path)
    syncDirectory(dirname(this.#path))
  }
}

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

function readLine(text: string): Line | null {
  try {
    const line = JSON.parse(text) as Record<string, unknown> | null
    const { add, done, digest } = line ?? {}
    if (typeof digest !== 'string') return null
    if (typeof add === 'string') return { add, digest }
    return typeof done === 'string' ? { done, digest } : null
  } catch {
    return null
  }
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done)
}

/** Makes a rename last. Windows has no such call and needs none. */
function syncDirectory(path: string): void {
  if (process.platform === 'win32') return
  const directory = openSync(path, 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}
