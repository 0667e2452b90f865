import type { CaseName } from './case-names.ts'
import type { Case, Figure, Measured, Target } from './case.ts'
import { median, spread } from './stats.ts'

/** What was measured of one contender. */
export interface Series {
  contender: string
  rounds: readonly Measured[]
}

export interface FigureSummary extends Figure {
  median: number
  spread: number
}

export interface ContenderSummary {
  contender: string
  rounds: number
  figures: readonly FigureSummary[]
}

export interface TargetSummary extends Target {
  /** The ratio, or the figure itself; null: something was not measured. */
  reached: number | null
  met: boolean | null
}

export interface CaseSummary {
  name: CaseName
  title: string
  contenders: readonly ContenderSummary[]
  targets: readonly TargetSummary[]
}

/** Medians, their spread, and what became of the targets. */
export function summarise({ name, title, figures, targets }: Case, series: readonly Series[]): CaseSummary {
  const contenders = series.map(({ contender, rounds }): ContenderSummary => {
    const found = figures.flatMap((figure): FigureSummary[] => {
      const values = rounds.flatMap((round) => round[figure.name] ?? [])
      return values.length === 0 ? [] : [{ ...figure, median: median(values), spread: spread(values) }]
    })
    return { contender, rounds: rounds.length, figures: found }
  })
  const medianOf = (contender: string, figure: string): number | undefined =>
    contenders.find((one) => one.contender === contender)?.figures.find((one) => one.name === figure)?.median
  return { name, title, contenders, targets: targets.map((target) => judge(target, medianOf)) }
}

function judge(target: Target, medianOf: (contender: string, figure: string) => number | undefined): TargetSummary {
  const own = medianOf(target.of, target.figure)
  const other = target.against === null ? 1 : medianOf(target.against, target.figure)
  if (own === undefined || other === undefined) return { ...target, reached: null, met: null }
  const reached = own / other
  return { ...target, reached, met: target.bound === 'at least' ? reached >= target.factor : reached <= target.factor }
}
