import { percentile } from '../report.ts'

/** A line of the comparison's producer. `at`: milliseconds of the clock. */
export type Line =
  | { type: 'asked' | 'accepted'; key: string; at: number }
  | { type: 'ended'; key: string; at: number; how: 'answered' | 'failed' | 'held'; sha: string | null }

/** What one system did under the same load and the same faults. */
export interface Row {
  system: string
  accepted: number
  calls: number
  paidPerJob: number
  paidMoreThanOnce: number
  lost: number
  twoAnswers: number
  failed: number
  held: number
  recoveryP50Ms: number
  recoveryMaxMs: number
}

interface Key {
  acceptedAt: number
  /** First time that an end was seen. */
  endedAt: number
  how: 'answered' | 'failed' | 'held' | null
  answers: Set<string>
}

/**
 * From the producer's record, the upstream's counts, and the times of the faults.
 *
 * Recovery after a fault: the longest that a job waited for its end which had been accepted before the fault and had none
 * yet; jobs that never ended are counted as lost and left out here.
 */
export function tallyRow(
  system: string,
  lines: readonly Line[],
  calls: ReadonlyMap<string, number>,
  faultTimes: readonly number[],
): Row {
  const keys = new Map<string, Key>()
  for (const line of lines) {
    if (line.type === 'asked') continue
    const known = keys.get(line.key) ?? {
      acceptedAt: line.at,
      endedAt: Infinity,
      how: null,
      answers: new Set<string>(),
    }
    keys.set(line.key, known)
    if (line.type !== 'ended') continue
    if (line.at < known.endedAt) known.endedAt = line.at
    known.how = line.how
    if (line.sha !== null) known.answers.add(line.sha)
  }
  const all = [...keys.values()]
  const recoveries = faultTimes.map((at) => {
    const caught = all.filter((key) => key.acceptedAt < at && key.endedAt !== Infinity)
    return Math.max(0, ...caught.map(({ endedAt }) => endedAt - at))
  })
  const made = [...calls.values()]
  const sum = made.reduce((total, count) => total + count, 0)
  const ended = (how: Key['how']): number => all.filter((key) => key.how === how).length
  return {
    system,
    accepted: all.length,
    calls: sum,
    paidPerJob: all.length === 0 ? 0 : sum / all.length,
    paidMoreThanOnce: made.filter((count) => count > 1).length,
    lost: ended(null),
    twoAnswers: all.filter(({ answers }) => answers.size > 1).length,
    failed: ended('failed'),
    held: ended('held'),
    recoveryP50Ms: percentile(recoveries, 0.5),
    recoveryMaxMs: Math.max(0, ...recoveries),
  }
}

export function renderRows(rows: readonly Row[]): string {
  const line = (name: string, show: (row: Row) => string | number): string =>
    `| ${name} | ${rows.map(show).join(' | ')} |`
  const seconds = (ms: number): string => (ms / 1000).toFixed(1)
  return [
    `| | ${rows.map(({ system }) => system).join(' | ')} |`,
    `|---|${rows.map(() => '---').join('|')}|`,
    line('jobs accepted', ({ accepted }) => accepted),
    line('paid calls', ({ calls }) => calls),
    line('paid calls per job, mean', ({ paidPerJob }) => paidPerJob.toFixed(4)),
    line('jobs paid more than once', ({ paidMoreThanOnce }) => paidMoreThanOnce),
    line('jobs lost: accepted, never ended', ({ lost }) => lost),
    line('keys with two different answers', ({ twoAnswers }) => twoAnswers),
    line('jobs failed', ({ failed }) => failed),
    line('jobs held for a decision', ({ held }) => held),
    line('recovery p50 s', ({ recoveryP50Ms }) => seconds(recoveryP50Ms)),
    line('recovery max s', ({ recoveryMaxMs }) => seconds(recoveryMaxMs)),
  ].join('\n')
}
