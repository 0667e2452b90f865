import type { Claim, Claimed, KnownGroup, Turn } from '@askonce/store'

/** One claim in so many takes first what has waited for long, so that nothing of a low priority waits for ever. */
const agedEvery = 10
/** A group of which less was claimed leaves so few dead entries that it may be walked through. */
const heavyFrom = 1_000
/** Groups that are remembered. The one that was claimed from longest ago is forgotten first. */
const mostGroups = 200
/** How far behind the newest claimed job a group is looked at: a commit may bring one that is older by so much. */
const marginMs = 1_000
/** What such a look leaves behind is found by a whole one, at the latest after this, or after so many times what the last one took. */
const wholeEveryMs = 1_000
const wholeShare = 20

interface Group extends KnownGroup {
  claimed: number
}

/** What the next claim of a lane begins with. */
export interface Beginning {
  turn: Turn
  agedFirst: boolean
  known: readonly KnownGroup[]
}

/**
 * What a worker remembers of a lane from one claim to the next: whose turn it is, and how far the groups are claimed from which it has claimed
 * much. Each worker keeps turns of its own; what is fair in each is fair in all. Nothing is lost with it.
 */
export class Turns {
  private turn: Turn = { tenant: '', credit: 0 }
  private claims = 0
  private readonly groups = new Map<string, Group>()
  private wholeAt = -Infinity
  private wholeTookMs = 0

  /** `nowMs` is monotonic. */
  begin(nowMs: number): Beginning {
    this.claims += 1
    const isWhole = nowMs - this.wholeAt >= Math.max(wholeEveryMs, wholeShare * this.wholeTookMs)
    const known = isWhole ? [] : [...this.groups.values()].filter(({ claimed }) => claimed >= heavyFrom).toSorted(byKey)
    return { turn: this.turn, agedFirst: this.claims % agedEvery === 0, known }
  }

  /** What became of it, and the monotonic times between which it ran. */
  end({ known }: Beginning, { claims, turn }: Claimed, startedMs: number, endedMs: number): void {
    this.turn = turn
    if (known.length === 0) {
      this.wholeAt = endedMs
      this.wholeTookMs = endedMs - startedMs
    }
    for (const claim of claims) this.remember(claim)
    for (const name of this.groups.keys()) {
      if (this.groups.size <= mostGroups) break
      this.groups.delete(name)
    }
  }

  private remember({ tenant_id: tenant, model, priority, run_at: runAt }: Claim): void {
    const name = `${tenant}\n${priority}\n${model}`
    const before = this.groups.get(name)
    const since = new Date(Math.max(before?.since.getTime() ?? 0, runAt.getTime() - marginMs))
    // To the end of the map: the newest.
    this.groups.delete(name)
    this.groups.set(name, { tenant, model, priority, since, claimed: (before?.claimed ?? 0) + 1 })
  }
}

/** As the key of `ready` has them: texts by their bytes. */
function byKey(left: KnownGroup, right: KnownGroup): number {
  return (
    Buffer.compare(Buffer.from(left.tenant), Buffer.from(right.tenant)) ||
    Buffer.compare(Buffer.from(left.model), Buffer.from(right.model)) ||
    left.priority - right.priority
  )
}
