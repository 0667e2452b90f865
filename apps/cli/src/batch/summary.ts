import { clock, count } from '../format.ts'
import { oneLine, paint, remark } from '../terminal.ts'
import { cost } from './bar.ts'
import type { Tally } from './tally.ts'

export interface RunFacts {
  tally: Tally
  /** Path, or `-`. */
  out: string
  elapsedMs: number
  interrupted: boolean
}

/** The summary of a run as a JSON document. */
export function summaryDocument({ tally, out, elapsedMs, interrupted }: RunFacts): object {
  return {
    object: 'batch',
    out,
    total: tally.total,
    answered: tally.done - tally.failed,
    kept: tally.kept,
    replayed: tally.replayed,
    attached: tally.attached,
    new: tally.new,
    failed: tally.failed,
    uncertain: tally.uncertain,
    paid_attempts: tally.paidAttempts,
    maybe_paid_attempts: tally.maybePaidAttempts,
    cost_usd: Number(tally.costUsd.toFixed(10)),
    unpriced_jobs: tally.unpriced,
    simulated_jobs: tally.simulated,
    input_tokens: tally.inputTokens,
    output_tokens: tally.outputTokens,
    elapsed_seconds: Number((elapsedMs / 1000).toFixed(1)),
    interrupted,
    errors: [...tally.reasons].map(([code, reason]) => ({
      code,
      count: reason.count,
      lines: reason.lines,
      message: reason.message,
    })),
  }
}

/** The summary for people, on stderr. */
export function printSummary(facts: RunFacts): void {
  const { tally, out, elapsedMs } = facts
  const { total, done, failed, kept, replayed, attached } = tally
  const parts = [
    ...(kept > 0 ? [`${kept} were in ${out} already`] : []),
    `${replayed} replayed`,
    ...(attached > 0 ? [`${attached} were running already`] : []),
    `${tally.new} new`,
  ]
  const failures = failed > 0 ? paint(process.stderr, 'red', `${failed} failed`) : '0 failed'
  remark(
    `${done - failed} of ${count(total, 'line')} answered (${parts.join(', ')}), ${failures}, in ${clock(elapsedMs)}`,
  )
  remark(costLine(tally))
  for (const [code, { lines, count: affected, message }] of tally.reasons) {
    const which = `${affected === 1 ? 'line' : 'lines'} ${lines.join(', ')}${affected > lines.length ? ', …' : ''}`
    remark(`  ${affected} ${code} (${which}): ${oneLine(message)}`)
  }
  for (const line of advice(facts)) remark(line)
}

function costLine(tally: Tally): string {
  const { paidAttempts, maybePaidAttempts, inputTokens, outputTokens, simulated, unpriced } = tally
  const tokens = `${inputTokens} tokens in, ${outputTokens} out`
  if (simulated > 0 && unpriced === 0 && tally.costUsd === 0) {
    return `The answers are simulated: nothing was paid (${count(paidAttempts, 'attempt')}, ${tokens})`
  }
  const unknown = unpriced > 0 ? `; the price of ${count(unpriced, 'job')} is unknown` : ''
  const maybe = maybePaidAttempts > 0 ? `, ${maybePaidAttempts} more may have been billed` : ''
  return `${count(paidAttempts, 'paid attempt')}${maybe}, cost ${cost(tally)}${unknown}, ${tokens}`
}

/** How to go on. */
function advice({ tally, out, interrupted }: RunFacts): string[] {
  const { total, done, failed, uncertain } = tally
  if (interrupted) {
    const where = out === '-' ? '' : ` (in ${out})`
    return [
      `Interrupted: ${done} of ${count(total, 'line')} done${where}. What was submitted goes on running on the server.`,
      'Run the same command again to continue; what has an answer is not paid again.',
    ]
  }
  return [
    ...(uncertain > 0
      ? [
          `${uncertain} held, because the call may have been billed: askonce list --uncertain shows them, for retry or fail.`,
        ]
      : []),
    ...(failed > uncertain
      ? ['Run the same command again to ask the failed ones again, where that cannot be charged twice.']
      : []),
  ]
}
