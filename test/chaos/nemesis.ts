import { setTimeout as sleep } from 'node:timers/promises'
import type { Aftermath, Fault, Planned } from './faults.ts'
import type { Fleet } from './fleet.ts'
import type { Probe } from './probe.ts'
import { seededRandom } from './random.ts'

/** A fault that was injected, and how long the system took afterwards; null while it is not back. */
export interface Injected {
  kind: string
  atMs: number
  overlapped: boolean
  recoveryMs: number | null
}

/**
 * The faults of a seed, without end. The same seed and form give the same faults in the same order with the same lengths and
 * pauses; when each one comes depends on how fast the system recovers.
 */
export function* planFaults(
  seed: number,
  kinds: readonly { kind: string; weight: number }[],
): Generator<Planned, never, void> {
  const random = seededRandom(seed)
  const total = kinds.reduce((sum, { weight }) => sum + weight, 0)
  // Every kind once, in an order of the seed's, before the first comes again by chance: a short run sees all it can.
  const first = kinds.map(({ kind }) => ({ kind, order: random.next() })).toSorted((a, b) => a.order - b.order)
  for (let count = 0; ; count += 1) {
    let left = random.next() * total
    const drawn = kinds.find(({ weight }) => (left -= weight) < 0) ?? kinds[0]
    yield {
      kind: first[count]?.kind ?? drawn?.kind ?? '',
      target: random.integer(0, 1_000_000),
      length: random.next(),
      gapMs: random.integer(100, 1_000),
      overlaps: random.next() < 0.3,
    }
  }
}

export interface NemesisOptions<F extends Fleet> {
  fleet: F
  faults: readonly Fault<F>[]
  seed: number
  probe: Probe
  /** Aborted when the time is up, or a promise is broken. */
  signal: AbortSignal
  /** The system did not come back, or the fault could not be made. */
  onFailure: (what: string) => void
}

/** Longest that recovery may take; beyond, the run has failed. */
const recoveryLimitMs = 60_000

/** Injects faults until `signal` aborts. Resolves when all of them are over and everything has recovered. */
export async function runNemesis<F extends Fleet>(options: NemesisOptions<F>, injected: Injected[]): Promise<void> {
  const { fleet, faults, seed, probe, signal, onFailure } = options
  const busy = new Map<string, Promise<unknown>>()
  const began = performance.now()
  const underWay = new Set<Promise<void>>()
  const timeIsUp = aborted(signal)
  const watchOne = async (entry: Injected, over: Promise<Aftermath>): Promise<void> => {
    try {
      entry.recoveryMs = await probe.untilRecovered(await over, recoveryLimitMs)
      if (entry.recoveryMs === null) onFailure(`no recovery within ${recoveryLimitMs / 1000} s after: ${entry.kind}`)
    } catch (error) {
      onFailure(`${entry.kind} could not be injected: ${String(error)}`)
    }
  }
  for (const planned of planFaults(seed, faults)) {
    const fault = faults.find(({ kind }) => kind === planned.kind)
    if (fault === undefined) throw new Error(`no such fault: ${planned.kind}`)
    const touched = fault.touches(planned)
    for (const name of touched) await busy.get(name)
    if (signal.aborted) break

    const entry: Injected = {
      kind: fault.kind,
      atMs: Math.round(performance.now() - began),
      overlapped: underWay.size > 0,
      recoveryMs: null,
    }
    injected.push(entry)
    const over = fault.run(fleet, planned)
    // What it touched is free again when the fault itself is over; its recovery may meet the next one.
    for (const name of touched) busy.set(name, over)
    const whole = watchOne(entry, over)
    underWay.add(whole)
    void whole.finally(() => underWay.delete(whole))
    if (!planned.overlaps) await Promise.race([whole, timeIsUp])
    await sleep(planned.gapMs, undefined, { signal }).catch(() => undefined)
  }
  await Promise.all(underWay)
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
