import { createHash } from 'node:crypto'
import { closeSync, existsSync, openSync, readFileSync, readSync, truncateSync } from 'node:fs'
import { open } from 'node:fs/promises'

export type Policy = 'rerun' | 'hold' | 'fail'

/** What a producer, or the probe, writes down about one key. The checker believes these lines and the upstream's counts. */
export type Entry =
  /** About to be submitted for the first time: whatever is paid for it from now on must stay within this. */
  | { type: 'asked'; key: string; policy: Policy; maxPaid: number }
  /** A 2xx was received. On disk before the producer counts it. */
  | { type: 'accepted'; key: string; id: string }
  /** An answer was shown. */
  | { type: 'answer'; key: string; sha: string }
  /** About to ask for a retry that accepts a second charge: if it is carried out, one more payment is allowed from now on. */
  | { type: 'consent'; key: string }
  /** What the API said when everything was over. */
  | { type: 'final'; key: string; id: string; state: string; sha: string | null }

/** Digest of an answer, the same from its bytes and from its parsed JSON. */
export function answerSha(answer: unknown): string {
  return createHash('sha256').update(JSON.stringify(answer)).digest('hex')
}

/** An append-only file of entries. */
export interface RecordFile<E = Entry> {
  /** Resolves when the entries are on disk; what is appended at the same time shares one flush. */
  append(entries: readonly E[]): Promise<void>
  close(): Promise<void>
}

/** Opens a record; a line that a killed writer left unfinished, and so never counted, is cut off. */
export function openRecord<E = Entry>(path: string): RecordFile<E> {
  if (existsSync(path)) truncateSync(path, readFileSync(path).lastIndexOf(10) + 1)
  const opened = open(path, 'a')
  let waiting: { text: string; resolve: () => void; reject: (error: Error) => void }[] = []
  let busy = false
  const flush = async (): Promise<void> => {
    busy = true
    while (waiting.length > 0) {
      const batch = waiting
      waiting = []
      try {
        const file = await opened
        await file.appendFile(batch.map(({ text }) => text).join(''))
        await file.datasync()
        for (const { resolve } of batch) resolve()
      } catch (error) {
        for (const { reject } of batch) reject(error as Error)
      }
    }
    busy = false
  }
  return {
    append: (entries) => {
      const text = entries.map((entry) => `${JSON.stringify(entry)}\n`).join('')
      return new Promise((resolve, reject) => {
        waiting.push({ text, resolve, reject })
        if (!busy) void flush()
      })
    },
    close: async () => await (await opened).close(),
  }
}

/** Reads what has been added to a record since the last call. An unfinished line waits for the next one. */
export function followRecord<E = Entry>(path: string): () => E[] {
  let offset = 0
  const chunk = Buffer.alloc(1 << 20)
  return () => {
    if (!existsSync(path)) return []
    const fd = openSync(path, 'r')
    const parts: Buffer[] = []
    let at = offset
    for (;;) {
      const length = readSync(fd, chunk, 0, chunk.length, at)
      if (length === 0) break
      parts.push(Buffer.from(chunk.subarray(0, length)))
      at += length
    }
    closeSync(fd)
    const bytes = Buffer.concat(parts)
    const whole = bytes.subarray(0, bytes.lastIndexOf(10) + 1)
    offset += whole.length
    return whole
      .toString()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as E)
  }
}
