import type { KeyStore } from './key-store.ts'

/** A key could not be stored, so its request was not sent. The reason is the `cause`. */
export class KeyStoreError extends Error {
  override readonly name = 'KeyStoreError'
}

/** A key that a request has for as long as it is under way. */
export interface KeyLease {
  readonly key: string
  /** The request ended without an answer: the next one of its kind takes the key. */
  keep(): void
  /** The answer was read, or will never come: the key is not used again. Never rejects. */
  forget(): Promise<void>
}

/** Keys of requests under way in this process, whatever store they are in: they are random, so no two stores share one. */
const inFlight = new Set<string>()

/** One request of a kind takes or forgets a key at a time: between the look and the choice nothing else may happen. */
const turns = new Map<string, Promise<unknown>>()

async function inTurn<T>(digest: string, step: () => Promise<T>): Promise<T> {
  const before = turns.get(digest)
  const own = before === undefined ? step() : before.then(step, step)
  turns.set(digest, own)
  try {
    return await own
  } finally {
    if (turns.get(digest) === own) turns.delete(digest)
  }
}

/**
 * A key for a request: one that an earlier request of the same kind left behind, in this run or in one that crashed, else a new
 * one, which the store holds when this resolves.
 * @throws KeyStoreError when the store fails
 */
export function leaseKey(store: KeyStore, digest: string): Promise<KeyLease> {
  return inTurn(digest, async () => {
    try {
      const left = await store.list(digest)
      const known = left.find((key) => !inFlight.has(key))
      const key = known ?? crypto.randomUUID()
      if (known === undefined) await store.add(digest, key)
      inFlight.add(key)
      return lease(store, digest, key)
    } catch (cause) {
      throw new KeyStoreError('The idempotency key could not be stored; nothing was sent.', { cause })
    }
  })
}

function lease(store: KeyStore, digest: string, key: string): KeyLease {
  return {
    key,
    keep: () => void inFlight.delete(key),
    forget: () =>
      inTurn(digest, async () => {
        try {
          await store.remove(digest, key)
          inFlight.delete(key)
        } catch {
          // The caller has its answer. The key stays marked, so that this process does not use it again; the next one at worst
          // gets the stored answer once more, which costs nothing.
        }
      }),
  }
}
