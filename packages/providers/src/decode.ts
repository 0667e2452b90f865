import type { Transform } from 'node:stream'
import * as zlib from 'node:zlib'
import type { Headers } from './exchange.ts'

/** Undoes the content encodings of one response, as it comes. */
export interface Decoding {
  /** Takes the next bytes. False: it is behind, and `onRoom` says when it takes more. */
  write: (chunk: Buffer) => boolean
  /** Whether all that was written has come out. */
  isIdle: () => boolean
  /** No more bytes come. Resolves when all that can be decoded has come out; `fault` says what could not. */
  end: () => Promise<void>
  fault: () => string | null
  destroy: () => void
}

export interface DecodingEvents {
  onData: (chunk: Buffer) => void
  onRoom: () => void
}

const chunkSize = 64 * 1024
// What was cut off still shows what came before the cut.
const cut = { chunkSize, finishFlush: zlib.constants.Z_SYNC_FLUSH }

const makers: Record<string, (first: Buffer) => Transform> = {
  gzip: () => zlib.createGunzip(cut),
  'x-gzip': () => zlib.createGunzip(cut),
  // Some servers mean the bare format of RFC 1951.
  deflate: (first) => (isZlib(first) ? zlib.createInflate(cut) : zlib.createInflateRaw(cut)),
  br: () => zlib.createBrotliDecompress({ chunkSize, finishFlush: zlib.constants.BROTLI_OPERATION_FLUSH }),
  // Node 22.15 and later.
  ...('createZstdDecompress' in zlib
    ? {
        zstd: () =>
          (zlib as unknown as { createZstdDecompress: (options: object) => Transform }).createZstdDecompress({
            chunkSize,
          }),
      }
    : {}),
}

/** The first byte of zlib's header names the method; the second makes both divisible by 31, and may not have come yet. */
function isZlib(first: Buffer): boolean {
  const [method = 0, check] = first
  return (method & 0x0f) === 8 && method >> 4 <= 7 && (check === undefined || ((method << 8) | check) % 31 === 0)
}

/**
 * Undoes a content encoding that a server applied although we asked for `identity`. The decoded bytes are what is stored:
 * "exact bytes" means the body that the provider wrote, and readers of the answer would not expect the encoding either.
 * It is done in pieces, so that a small body that swells is noticed as it does. Null: there is none, or one that we do not know; such a
 * body stays as it is and is then found not to be JSON.
 */
export function createDecoding(headers: Headers, { onData, onRoom }: DecodingEvents): Decoding | null {
  const names = encodingsOf(headers)
  if (names.length === 0 || !names.every((name) => Object.hasOwn(makers, name))) return null
  let steps: Transform[] | null = null
  let fault: string | null = null
  let waiting = 0
  let finished: (() => void) | null = null
  const ended = new Promise<void>((resolve) => (finished = resolve))

  const begin = (first: Buffer): Transform[] =>
    // The encoding that was applied last is undone first. Only the first step sees the first bytes.
    names.toReversed().map((name, at, all) => {
      const step = (makers[name] as (first: Buffer) => Transform)(at === 0 ? first : noBytes)
      step.on('error', (error) => {
        fault ??= `the body does not decode as ${name}: ${error.message}`
        finished?.()
      })
      if (at === all.length - 1) {
        step.on('data', onData)
        step.once('end', () => finished?.())
      }
      return step
    })

  return {
    write: (chunk) => {
      if (fault !== null) return true
      if (steps === null) {
        steps = begin(chunk)
        for (const [at, step] of steps.entries()) {
          const after = steps[at + 1]
          if (after !== undefined) step.pipe(after)
        }
        steps[0]?.on('drain', onRoom)
      }
      waiting += 1
      return steps[0]?.write(chunk, () => void (waiting -= 1)) ?? true
    },
    isIdle: () => waiting === 0,
    end: () => {
      if (steps === null || fault !== null) return Promise.resolve()
      steps[0]?.end()
      return ended
    },
    fault: () => fault,
    destroy: () => {
      for (const step of steps ?? []) step.destroy()
      finished?.()
    },
  }
}

const noBytes = Buffer.of(0x78)

function encodingsOf(headers: Headers): string[] {
  const value = headers['content-encoding'] ?? ''
  return (Array.isArray(value) ? value.join(',') : value)
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '' && name !== 'identity')
}
