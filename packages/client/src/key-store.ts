/**
 * Where keys wait for the answer that they name. `digest` stands for one request (path and body), `key` is one key that was
 * made for it; a digest has several keys when the same request was sent several times at once.
 *
 * `add` must have stored the key for good when it resolves: the request leaves only afterwards. If it rejects, nothing is sent.
 */
export interface KeyStore {
  /** Keys of this request whose answer has not been read, in any order. */
  list(digest: string): readonly string[] | Promise<readonly string[]>
  add(digest: string, key: string): void | Promise<void>
  remove(digest: string, key: string): void | Promise<void>
}

/** Keys by request, in memory: a view that stores share. */
export class KeysByDigest {
  readonly #keys = new Map<string, string[]>()
  #size = 0

  get size(): number {
    return this.#size
  }

  list(digest: string): readonly string[] {
    return [...(this.#keys.get(digest) ?? [])]
  }

  add(digest: string, key: string): void {
    const keys = this.#keys.get(digest)
    if (keys?.includes(key) === true) return
    if (keys === undefined) this.#keys.set(digest, [key])
    else keys.push(key)
    this.#size += 1
  }

  remove(digest: string, key: string): void {
    const keys = this.#keys.get(digest) ?? []
    const left = keys.filter((other) => other !== key)
    this.#size -= keys.length - left.length
    if (left.length > 0) this.#keys.set(digest, left)
    else this.#keys.delete(digest)
  }

  *[Symbol.iterator](): Generator<{ digest: string; key: string }> {
    for (const [digest, keys] of this.#keys) for (const key of keys) yield { digest, key }
  }
}

/** Keys that live as long as this process: they outlast a lost connection and the SDK's own retries, but no crash. */
export function memoryKeyStore(): KeyStore {
  return new KeysByDigest()
}

/** The part of `localStorage` and `sessionStorage` that is used. */
export interface WebStorage {
  readonly length: number
  key(index: number): string | null
  setItem(name: string, value: string): void
  removeItem(name: string): void
}

/**
 * Keys in a browser's storage, one item each, so that tabs cannot overwrite one another's. With `sessionStorage` every tab has
 * keys of its own and keeps them over a reload. `localStorage` also outlives the tab, but is shared: of two tabs that send the
 * very same request at the same time, the second may join the first and get the same answer.
 */
export function webKeyStore(storage: WebStorage, prefix = 'askonce:key:'): KeyStore {
  const nameOf = (digest: string, key: string): string => `${prefix}${digest}:${key}`
  const names = (): string[] => {
    const all = Array.from({ length: storage.length }, (_, index) => storage.key(index))
    return all.filter((name) => name !== null)
  }
  return {
    list(digest) {
      const start = nameOf(digest, '')
      return names()
        .filter((name) => name.startsWith(start))
        .map((name) => name.slice(start.length))
    },
    add: (digest, key) => storage.setItem(nameOf(digest, key), ''),
    remove: (digest, key) => storage.removeItem(nameOf(digest, key)),
  }
}
