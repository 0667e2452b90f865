import { findApiKey, type Db, type FoundApiKey } from '@askonce/store'
import { hashKey } from './keys.ts'
import { patiently } from './patience.ts'

/** From this age on a key is looked up anew, while whoever brings it goes on with what is known. */
const refreshMs = 400
/** From this age on whoever brings it waits for the look: what was changed for its tenant holds within a second. */
const freshMs = 800
/** So long it stays valid while Postgres does not answer: also the longest life of a revoked one. */
const knownMs = 10_000
/** A key that was not found is looked for again after this: soon after its creation it works. */
const unknownMs = 1_000
/** A known key is not held up for longer by a database that is slow. */
const lookMs = 500
const maxEntries = 10_000

interface Known {
  key: FoundApiKey
  /** Of the look, when it began. */
  lookedUpAtMs: number
}

/** API keys by their hash, with what holds for their tenants: looked up in the database and remembered for a moment. */
export class KeyRing {
  private readonly db: Db
  private readonly known = new Expiring<Known>(knownMs)
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
    if (known === undefined) return this.unknown.get(id) === undefined ? this.look(id, hash) : Promise.resolve(null)
    const ageMs = performance.now() - known.lookedUpAtMs
    if (ageMs < refreshMs) return Promise.resolve(known.key)
    const look = patiently(this.look(id, hash), undefined, lookMs).catch(() => known.key)
    return ageMs < freshMs ? Promise.resolve(known.key) : look
  }

  /** One look at a time for a key. */
  private look(id: string, hash: Buffer): Promise<FoundApiKey | null> {
    const underWay = this.underWay.get(id)
    if (underWay !== undefined) return underWay
    const look = this.lookUp(id, hash).finally(() => this.underWay.delete(id))
    this.underWay.set(id, look)
    return look
  }

  private async lookUp(id: string, hash: Buffer): Promise<FoundApiKey | null> {
    const lookedUpAtMs = performance.now()
    const found = await patiently(findApiKey(this.db, hash))
    if (found === null) {
      this.known.delete(id)
      this.unknown.set(id, true)
    } else this.known.set(id, { key: found, lookedUpAtMs })
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

  delete(id: string): void {
    this.entries.delete(id)
  }
}
