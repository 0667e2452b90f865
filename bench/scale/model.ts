/** CPU milliseconds that one job, or one request, costs each part. */
export type Costs = Readonly<Partial<Record<Part, number>>>

export const parts = ['api', 'worker', 'janitor', 'postgres', 'redis', 'generator'] as const
export type Part = (typeof parts)[number]

/** What one process of a kind did with the load that each process of a setup has. */
export interface Calibration {
  /** Units a second. */
  perSecond: number
  costs: Costs
}

export interface Setup {
  cores: number
  /** How much of the cores can be used, 0 to 1, before everything waits for everything else. */
  usable: number
  /** APIs, or workers. */
  processes: number
  /** Calls that each worker has under way, and how long one takes with all that is done around it; null: calls take no time. */
  calls: { each: number; ms: number } | null
}

export interface Prediction {
  perSecond: number
  /** What gives out first. */
  bound: string
}

/**
 * The most that a setup can do: no more than its cores have time for; no more than the one thread of Redis; no more than so many processes
 * like the one that was measured; and no more than the calls under way allow (Little's law). Says nothing of disks: group commit makes
 * their share per job small until Postgres itself is full.
 */
export function predict(one: Calibration, { cores, usable, processes, calls }: Setup): Prediction {
  const total = parts.reduce((sum, part) => sum + (one.costs[part] ?? 0), 0)
  const bounds: Prediction[] = [{ perSecond: (usable * cores * 1000) / total, bound: 'all cores' }]
  const { redis = 0 } = one.costs
  if (redis > 0) bounds.push({ perSecond: 1000 / redis, bound: 'one core for redis' })
  bounds.push(
    calls === null
      ? { perSecond: processes * one.perSecond, bound: 'one core for each process' }
      : { perSecond: (processes * calls.each * 1000) / calls.ms, bound: 'calls under way' },
  )
  return bounds.reduce((least, next) => (next.perSecond < least.perSecond ? next : least))
}
