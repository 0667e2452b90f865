import { createHash } from 'node:crypto'

/** What a producer sees of one of its keys. */
export interface Seen {
  /** `open`: not yet, or the system does not know it. `held`: waits for a person. */
  how: 'open' | 'answered' | 'failed' | 'held'
  /** Digest of the answer. */
  sha: string | null
}

/** How a producer talks to one of the systems. */
export interface Backend {
  /** Resolves when the system has accepted the key, or had it already; rejects when that is not known. */
  submit(key: string): Promise<void>
  read(key: string): Promise<Seen>
  close(): Promise<void>
}

export const open: Seen = { how: 'open', sha: null }

/** The provider's own body; `user` is the upstream's name for the key, under which it counts. */
export function requestOf(key: string): object {
  return { model: 'gpt-chaos', user: key, messages: [{ role: 'user', content: `the question of ${key}` }] }
}

export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
