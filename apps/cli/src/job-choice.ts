import { transitions, type DecisionAction, type JobState } from '@askonce/core'
import { Option, type Command } from 'commander'
import { usageError } from './errors.ts'
import { duration, pair } from './options.ts'
import { readText } from './read-text.ts'

/** Options of the commands that decide about jobs. */
export interface DecisionOptions {
  state?: JobState
  uncertain?: boolean
  olderThan?: number
  metadata?: Record<string, string>
  reason?: string
  dryRun?: boolean
  json?: boolean
}

/** Which jobs are meant: by id, or what a filter finds. */
export type JobChoice =
  | { ids: string[] }
  | { filter: { state?: JobState; created_before?: string; metadata?: Record<string, string> } }

const events = { retry: 'retry', fail: 'give_up', cancel: 'cancel' } as const satisfies Record<DecisionAction, string>

/** States of the jobs about which this can be decided. */
export function decidable(action: DecisionAction): JobState[] {
  return transitions
    .filter(({ event }) => event === events[action])
    .flatMap(({ from }) => from.filter((state) => state !== null))
}

/** Arguments and options by which jobs are named, and what goes with a decision. */
export function addDecisionOptions(command: Command, action: DecisionAction): Command {
  const states = decidable(action)
  command.argument('[id...]', 'ids of the jobs; - reads them from stdin')
  if (states.length > 1) command.addOption(new Option('-s, --state <state>', 'all in this state').choices(states))
  return command
    .option('-u, --uncertain', 'all that are held for a decision')
    .option('--older-than <age>', 'only those submitted longer ago than this, such as 90s, 15m, 12h or 7d', duration)
    .option('--metadata <name=value>', 'only those with this metadata; repeatable', pair)
    .option('-r, --reason <text>', 'why, for whoever reads the decisions later (askonce get ID --decisions)')
    .option('--dry-run', 'show which jobs are meant, and change nothing')
    .option('--json', 'print JSON')
}

/** What arguments and options mean. Throws usage errors: a decision about the wrong jobs cannot be taken back. */
export async function readChoice(ids: readonly string[], options: DecisionOptions): Promise<JobChoice> {
  const { state, uncertain = false, olderThan, metadata } = options
  const filtering = state !== undefined || uncertain || olderThan !== undefined || metadata !== undefined
  if (filtering && ids.length > 0) throw usageError('name jobs by id or by --state, --uncertain and so on, not by both')
  if (!filtering && ids.length === 0) {
    throw usageError('no job is named', 'By id, - for ids from stdin, or --uncertain, --older-than, --metadata.')
  }
  if (!filtering) return { ids: await readIds(ids) }
  if (uncertain && state !== undefined && state !== 'uncertain') {
    throw usageError('--uncertain and --state exclude each other')
  }
  const chosen = uncertain ? 'uncertain' : state
  return {
    filter: {
      ...(chosen === undefined ? {} : { state: chosen }),
      ...(olderThan === undefined ? {} : { created_before: new Date(Date.now() - olderThan).toISOString() }),
      ...(metadata === undefined ? {} : { metadata }),
    },
  }
}

async function readIds(ids: readonly string[]): Promise<string[]> {
  if (!ids.includes('-')) return [...new Set(ids)]
  if (ids.length > 1) throw usageError('- stands alone: the ids come from stdin')
  const read = (await readText('-')).split(/\s+/).filter((id) => id !== '')
  if (read.length === 0) throw usageError('stdin has no ids')
  return [...new Set(read)]
}
