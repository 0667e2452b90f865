/** The middle value; of an even number the mean of the two in the middle. NaN for none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** Largest distance from the median, as a share of it: 0.1 is ±10 %. 0 for one value. */
export function spread(values: readonly number[]): number {
  const middle = median(values)
  return Math.max(0, ...values.map((value) => Math.abs(value - middle) / middle))
}

/** The value below which `share` of the values lie, 1 for the largest. NaN for none. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN
}
