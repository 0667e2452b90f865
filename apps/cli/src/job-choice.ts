import { terminalStates, transitions, type DecisionAction, type JobState } from '@askonce/core'
import { Option, type Command } from 'commander'
import { usageError } from './errors.ts'
import { collect, duration, pair } from './options.ts'
import { readText } from './read-text.ts'

/** Options of the commands that decide about jobs. */
export interface DecisionOptions {
  state?: JobState
  uncertain?: boolean
  olderThan?: number
  metadata?: Record<string, string>
  key?: string[]
  keyPrefix?: string
  reason?: string
  dryRun?: boolean
  json?: boolean
}

/** Which jobs are meant: by name, or what a filter finds. */
export type JobChoice = { names: JobName[] } | { filter: JobFilter }

/** A job as somebody names it. */
export type JobName = { id: string } | { key: string }

export interface JobFilter {
  state?: JobState
  created_before?: string
  metadata?: Record<string, string>
  key_prefix?: string
}

const events = { retry: 'retry', fail: 'give_up', cancel: 'cancel' } as const

/** States of the jobs about which this can be decided. */
export function decidable(action: DecisionAction): JobState[] {
  if (action === 'delete') return [...terminalStates]
  return transitions
    .filter(({ event }) => event === events[action])
    .flatMap(({ from }) => from.filter((state) => state !== null))
}

/** Arguments and options by which jobs are named, and what goes with a decision. */
export function addDecisionOptions(command: Command, action: DecisionAction): Command {
  const states = decidable(action)
  command.argument('[job...]', 'ids or keys of the jobs; - reads them from stdin, one on a line')
  if (states.length > 1) command.addOption(new Option('-s, --state <state>', 'all in this state').choices(states))
  if (states.includes('uncertain')) command.option('-u, --uncertain', 'all that are held for a decision')
  return command
    .option('-k, --key <key>', 'the job with this key, also where that looks like an id; repeatable', collect)
    .option('--older-than <age>', 'only those submitted longer ago than this, such as 90s, 15m, 12h or 7d', duration)
    .option('--metadata <name=value>', 'only those with this metadata; repeatable', pair)
    .option('--key-prefix <text>', 'only those whose key begins with this')
    .option('-r, --reason <text>', 'why, for whoever reads the decisions later (askonce get ID --decisions)')
    .option('--dry-run', 'show which jobs are meant, and change nothing')
    .option('--json', 'print JSON')
}

/** What arguments and options mean. Throws usage errors: a decision about the wrong jobs cannot be taken back. */
export async function readChoice(
  named: readonly string[],
  options: DecisionOptions,
  action: DecisionAction,
): Promise<JobChoice> {
  const { state, uncertain = false, olderThan, metadata, keyPrefix, key: keys = [] } = options
  const filtering = [state, olderThan, metadata, keyPrefix].some((value) => value !== undefined) || uncertain
  const naming = named.length + keys.length > 0
  if (filtering && naming) throw usageError('name jobs by id or key, or by --metadata and the like, not by both')
  if (!filtering && !naming) {
    const by = decidable(action).length > 1 ? '--state' : '--uncertain'
    throw usageError(
      'no job is named',
      `By id or key, - for those from stdin, or by ${by}, --older-than, --metadata, --key-prefix.`,
    )
  }
  if (!filtering) return { names: [...(await readNames(named)), ...keys.map((key) => ({ key }))] }
  if (uncertain && state !== undefined && state !== 'uncertain') {
    throw usageError('--uncertain and --state exclude each other')
  }
  const chosen = uncertain ? 'uncertain' : state
  return {
    filter: {
      ...(chosen === undefined ? {} : { state: chosen }),
      ...(olderThan === undefined ? {} : { created_before: new Date(Date.now() - olderThan).toISOString() }),
      ...(metadata === undefined ? {} : { metadata }),
      ...(keyPrefix === undefined ? {} : { key_prefix: keyPrefix }),
    },
  }
}

/** The form of ids. A key may have it, too: then --key says so. */
const idForm = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

/** What somebody means who names a job by its id or by its key. */
export function jobNamed(text: string): JobName {
  return idForm.test(text) ? { id: text } : { key: text }
}

async function readNames(named: readonly string[]): Promise<JobName[]> {
  if (!named.includes('-')) return [...new Set(named)].map(jobNamed)
  if (named.length > 1) throw usageError('- stands alone: the ids or keys come from stdin')
  const lines = (await readText('-')).split('\n').map((line) => line.trim())
  // Several ids may share a line; a key may have blanks in it.
  const read = lines.flatMap((line) => {
    const words = line.split(/\s+/)
    return words.every((word) => idForm.test(word)) ? words : [line]
  })
  const names = [...new Set(read.filter((name) => name !== ''))]
  if (names.length === 0) throw usageError('stdin has no ids and no keys')
  return names.map(jobNamed)
}
