/** CPU milliseconds that one job, or one request, costs each part. */
export type Costs = Readonly<Partial<Record<Part, number>>>

export const parts = ['api', 'worker', 'janitor', 'postgres', 'redis', 'generator'] as const
export type Part = (typeof parts)[number]

/** Parts that are one process with one thread of JavaScript each, so that one of them is never faster than one core. */
const singleThreaded: readonly Part[] = ['api', 'worker', 'redis']

export interface Setup {
  cores: number
  /** Processes of each part; one where it is not said. */
  processes: Readonly<Partial<Record<Part, number>>>
  /** Calls that each worker has under way, and how long one takes with all that is done around it; null: calls take no time. */
  calls: { each: number; ms: number } | null
}

export interface Prediction {
  perSecond: number
  /** What gives out first. */
  bound: string
}

/**
 * The most that a setup can do: no more than its cores have time for, no more than any single-threaded part, and no more than the calls
 * under way allow (Little's law). Says nothing of disks: group commit makes their share per job small until Postgres itself is full.
 */
export function predict(costs: Costs, { cores, processes, calls }: Setup): Prediction {
  const bounds: Prediction[] = []
  const total = parts.reduce((sum, part) => sum + (costs[part] ?? 0), 0)
  bounds.push({ perSecond: (cores * 1000) / total, bound: 'all cores' })
  for (const part of singleThreaded) {
    const cost = costs[part] ?? 0
    if (cost > 0) bounds.push({ perSecond: ((processes[part] ?? 1) * 1000) / cost, bound: `one core for each ${part}` })
  }
  if (calls !== null) {
    const workers = processes.worker ?? 1
    bounds.push({ perSecond: (workers * calls.each * 1000) / calls.ms, bound: 'calls under way' })
  }
  return bounds.reduce((least, one) => (one.perSecond < least.perSecond ? one : least))
}
