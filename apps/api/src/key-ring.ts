import { findApiKey, type Db, type FoundApiKey } from '@askonce/store'
import { hashKey } from './keys.ts'
import { patiently } from './patience.ts'

/** A key that was found stays valid so long without a look: also the longest life of a revoked one, and the span that Postgres may be away. */
const knownMs = 10_000
/** A key that was not found is looked for again after this: soon after its creation it works. */
const unknownMs = 2_000
const maxEntries = 10_000

/** API keys by their hash, looked up in the database and remembered for seconds. */
export class KeyRing {
  private readonly db: Db
  private readonly known = new Expiring<FoundApiKey>(knownMs)
  // Apart from the known ones: somebody who sends random keys cannot push those out.
  private readonly unknown = new Expiring<true>(unknownMs)
  private readonly underWay = new Map<string, Promise<FoundApiKey | null>>()

  constructor(db: Db) {
    this.db = db
  }

  /** The key's record; null: unknown or revoked. Rejects when it is not remembered and Postgres does not answer. */
  find(key: string): Promise<FoundApiKey | null> {
    const hash = hashKey(key)
    const id = hash.toString('latin1')
    const known = this.known.get(id)
    if (known !== undefined) return Promise.resolve(known)
    if (this.unknown.get(id) !== undefined) return Promise.resolve(null)
    const underWay = this.underWay.get(id)
    if (underWay !== undefined) return underWay
    const look = this.look(id, hash).finally(() => this.underWay.delete(id))
    this.underWay.set(id, look)
    return look
  }

  private async look(id: string, hash: Buffer): Promise<FoundApiKey | null> {
    const found = await patiently(findApiKey(this.db, hash))
    if (found === null) this.unknown.set(id, true)
    else this.known.set(id, found)
    return found
  }
}

/** A bounded map whose entries end by themselves; the oldest goes first. */
class Expiring<Value> {
  private readonly lifeMs: number
  private readonly entries = new Map<string, { value: Value; untilMs: number }>()

  constructor(lifeMs: number) {
    this.lifeMs = lifeMs
  }

  get(id: string): Value | undefined {
    const entry = this.entries.get(id)
    if (entry === undefined || entry.untilMs > performance.now()) return entry?.value
    this.entries.delete(id)
    return undefined
  }

  set(id: string, value: Value): void {
    this.entries.delete(id)
    if (this.entries.size >= maxEntries) {
      for (const oldest of this.entries.keys()) {
        this.entries.delete(oldest)
        break
      }
    }
    this.entries.set(id, { value, untilMs: performance.now() + this.lifeMs })
  }
}
