import type { Bench } from './bench.ts'
import type { CaseName } from './case-names.ts'

/** What one measurement found, by the names of the case's figures. */
export type Measured = Record<string, number>

export interface Figure {
  name: string
  unit: string
}

/** Somebody who is measured: Askonce in one of its forms, or a peer. */
export interface Contender {
  name: string
  /** One measurement. What it starts it stops, and every database that it makes is its own. */
  measure(round: number): Promise<Measured>
}

/** A promise about medians of one run: of a figure as it is, or of its ratio to another contender's, or of how much more it is. */
export interface Target {
  figure: string
  of: string
  /** Null: the figure itself. Then `factor` is a bound in its unit. */
  against: string | null
  bound: 'at least' | 'at most'
  factor: number
  /** What is compared is the difference, in the figure's unit, and `factor` bounds that. */
  difference?: true
}

/** A case that is ready to be measured. */
export interface OpenCase {
  contenders: readonly Contender[]
  close(): Promise<void>
}

export interface Case {
  name: CaseName
  /** What it asks, in one line. */
  title: string
  figures: readonly Figure[]
  targets: readonly Target[]
  /** How often each contender is measured at most, whatever the run was asked for. */
  rounds?: number
  /** Starts what its contenders share. */
  open(bench: Bench): Promise<OpenCase>
}

/** A case whose contenders share nothing. */
export function apart(contenders: readonly Contender[]): OpenCase {
  return { contenders, close: () => Promise.resolve() }
}
