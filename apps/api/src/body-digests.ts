import { createHash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'

/** Bytes that are hashed before others get the processor: a few milliseconds. */
const sliceBytes = 1024 * 1024
/** Fingerprints that are remembered: two megabytes. */
const maxFingerprints = 10_000

/** What a body asks of its answer beside the request that the key names. */
export interface Wishes {
  /** The caller wants a receipt at once. */
  background: boolean
  /** Whether it asked for the usage at the end of its stream. */
  wantsUsage: boolean
}

export const noWishes: Wishes = { background: false, wantsUsage: false }

/**
 * Bodies by their bytes: what was parsed once need not be parsed again. A digest is SHA-256 over the bytes and everything else that decides what they
 * mean: the tenant, the call, its headers, and the settings by which a request is accepted and finds its lane. So equal digests are equal
 * submissions, and other settings know no digest of before.
 */
export class BodyDigests {
  private readonly settings: string
  private readonly fingerprints = new Map<string, Buffer>()

  constructor(settingsText: string) {
    this.settings = createHash('sha256').update(settingsText).digest('base64')
  }

  /** `call`: what decides the meaning of the body beside it; texts and plain objects. */
  async of(tenantId: string, call: readonly unknown[], body: Buffer): Promise<Buffer> {
    // JSON has no line feed in it: where it ends and the body begins is never in doubt.
    const digest = createHash('sha256').update(`${JSON.stringify([this.settings, tenantId, ...call])}\n`)
    for (let start = 0; start < body.length; start += sliceBytes) {
      if (start > 0) await nextTurn()
      digest.update(body.subarray(start, start + sliceBytes))
    }
    return digest.digest()
  }

  /** The key that is made of the request's fingerprint; null: this process has not parsed it, or remembers it no more. */
  derive(digest: Buffer, keyOf: (fingerprint: Buffer) => string): string | null {
    const fingerprint = this.fingerprints.get(digest.toString('base64'))
    return fingerprint === undefined ? null : keyOf(fingerprint)
  }

  /** The oldest goes first. */
  remember(digest: Buffer, fingerprint: Buffer): void {
    const id = digest.toString('base64')
    if (this.fingerprints.has(id)) return
    if (this.fingerprints.size >= maxFingerprints) {
      const [oldest] = this.fingerprints.keys()
      this.fingerprints.delete(oldest as string)
    }
    this.fingerprints.set(id, fingerprint)
  }
}

/** As it is stored: the digest, and a byte of wishes. */
export function withWishes(digest: Buffer, { background, wantsUsage }: Wishes): Buffer {
  return Buffer.concat([digest, Buffer.of((background ? 1 : 0) | (wantsUsage ? 2 : 0))])
}

/** What the body asked for whose digest was stored so. */
export function wishesIn(stored: Buffer | null): Wishes {
  const bits = stored?.at(-1) ?? 0
  return { background: (bits & 1) !== 0, wantsUsage: (bits & 2) !== 0 }
}
