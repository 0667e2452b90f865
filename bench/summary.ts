import { availableParallelism } from 'node:os'
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
  /** The ratio, the difference, or the figure itself; null: something was not measured. */
  reached: number | null
  met: boolean | null
  /** Of a rate that was missed: what all cores together have for one unit at the rate that was wanted, and what is spent on it. */
  room: Room | null
}

/** CPU of one unit, in microseconds. */
export interface Room {
  perSecond: number
  available: number
  spent: readonly { on: string; us: number }[]
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
  const medianOf: MedianOf = (contender, figure) =>
    contenders.find((one) => one.contender === contender)?.figures.find((one) => one.name === figure)?.median
  return { name, title, contenders, targets: targets.map((target) => judge(target, medianOf)) }
}

type MedianOf = (contender: string, figure: string) => number | undefined

function judge(target: Target, medianOf: MedianOf): TargetSummary {
  const own = medianOf(target.of, target.figure)
  const other = target.against === null ? 1 : medianOf(target.against, target.figure)
  if (own === undefined || other === undefined) return { ...target, reached: null, met: null, room: null }
  const reached = target.difference ? own - other : own / other
  const met = target.bound === 'at least' ? reached >= target.factor : reached <= target.factor
  const room = met || target.figure !== 'rate' ? null : roomFor(target.of, own, target.factor * other, medianOf)
  return { ...target, reached, met, room }
}

/** Null where it was not measured what a unit costs. */
function roomFor(of: string, rate: number, wanted: number, medianOf: MedianOf): Room | null {
  const spent = ['own cpu', 'postgres cpu', 'redis cpu'].flatMap((name) => {
    const us = medianOf(of, name)
    return us === undefined ? [] : [{ on: name.replace(' cpu', ''), us }]
  })
  if (spent.length === 0) return null
  const generator = medianOf(of, 'generator')
  if (generator !== undefined) spent.push({ on: 'generator', us: (generator / 100) * (1e6 / rate) })
  return { perSecond: wanted, available: (availableParallelism() * 1e6) / wanted, spent }
}
