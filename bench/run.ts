import type { Bench } from './bench.ts'
import type { Case, Contender, Measured, OpenCase } from './case.ts'
import { summarise, type CaseSummary, type Series } from './summary.ts'
import { readable } from './table.ts'

export interface CaseRun {
  summary: CaseSummary
  series: readonly Series[]
  /** What could not be measured, and why. */
  errors: readonly string[]
}

/** Measures a case: the contenders take turns, and every round begins with another one. */
export async function runCase(bench: Bench, given: Case, say: (text: string) => void): Promise<CaseRun> {
  const errors: string[] = []
  const fail = (what: string, error: unknown): void => {
    // What a run that is being stopped breaks is no finding.
    bench.signal.throwIfAborted()
    const text = `${what}: ${error instanceof Error ? error.message : String(error)}`
    errors.push(text)
    say(`  FAILED ${text}`)
  }
  const began = performance.now()
  say(`${given.name}: ${given.title}`)
  let open: OpenCase
  try {
    open = await given.open(bench)
  } catch (error) {
    fail(given.name, error)
    return { summary: summarise(given, []), series: [], errors }
  }
  const { contenders } = open
  const measured = new Map<Contender, Measured[]>(contenders.map((contender) => [contender, []]))
  try {
    for (let round = 0; round < Math.min(bench.options.rounds, given.rounds ?? Infinity); round += 1) {
      const turn = round % Math.max(1, contenders.length)
      for (const contender of [...contenders.slice(turn), ...contenders.slice(0, turn)]) {
        bench.signal.throwIfAborted()
        try {
          const found = await contender.measure(round)
          measured.get(contender)?.push(found)
          say(`  round ${round + 1}, ${contender.name}: ${describe(given, found)}`)
        } catch (error) {
          fail(`${given.name}, ${contender.name}`, error)
        }
      }
    }
  } finally {
    await open.close()
  }
  say(`  ${Math.round((performance.now() - began) / 1000)} s`)
  const series = contenders.map((contender) => ({
    contender: contender.name,
    rounds: measured.get(contender) ?? [],
  }))
  return { summary: summarise(given, series), series, errors }
}

function describe({ figures }: Case, found: Measured): string {
  return figures
    .filter(({ name }) => found[name] !== undefined)
    .map(({ name, unit }) => `${name} ${readable(found[name] ?? Number.NaN)} ${unit}`)
    .join(', ')
}
