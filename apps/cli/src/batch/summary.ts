import { clock, count, dollars } from '../format.ts'
import { oneLine, paint, remark } from '../terminal.ts'
import type { Tally, Usage } from './tally.ts'

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
    in_all: {
      paid_attempts: tally.inAll.paidAttempts,
      maybe_paid_attempts: tally.inAll.maybePaidAttempts,
      cost_usd: Number(tally.inAll.costUsd.toFixed(10)),
      unpriced_jobs: tally.inAll.unpriced,
      input_tokens: tally.inAll.inputTokens,
      output_tokens: tally.inAll.outputTokens,
    },
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
  for (const line of costLines(facts)) remark(line)
  for (const [code, { lines, count: affected, message }] of tally.reasons) {
    const which = `${affected === 1 ? 'line' : 'lines'} ${lines.join(', ')}${affected > lines.length ? ', …' : ''}`
    remark(`  ${affected} ${code} (${which}): ${oneLine(message)}`)
  }
  for (const line of advice(facts)) remark(line)
}

/** What this run paid for, and what the file has cost since its first run: after a crash the first says little. */
function costLines({ tally, out }: RunFacts): string[] {
  const { replayed, kept } = tally
  const left =
    kept > 0 ? ` (without the ${count(kept, 'line')} that ${kept === 1 ? 'was' : 'were'} in ${out} already)` : ''
  return [
    `  this run:         ${usageText(tally, tally)}, ${replayed} replayed`,
    `  this file in all: ${usageText(tally.inAll, tally)}${left}`,
  ]
}

function usageText(usage: Usage, { simulated }: Tally): string {
  const { paidAttempts, maybePaidAttempts, inputTokens, outputTokens, costUsd, unpriced } = usage
  const maybe = maybePaidAttempts > 0 ? ` and ${maybePaidAttempts} more that may have been billed` : ''
  const cost = costText({ costUsd, unpriced }, simulated > 0)
  return `${count(paidAttempts, 'call')}${maybe}, ${cost}, ${inputTokens} tokens in, ${outputTokens} out`
}

function costText({ costUsd, unpriced }: Pick<Usage, 'costUsd' | 'unpriced'>, simulated: boolean): string {
  if (unpriced > 0) {
    return costUsd === 0
      ? 'at an unknown price'
      : `${dollars(costUsd)} and the unknown price of ${count(unpriced, 'job')}`
  }
  return simulated && costUsd === 0 ? 'nothing paid: the answers are simulated' : dollars(costUsd)
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
