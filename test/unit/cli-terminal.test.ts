import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { jobTable } from '../../apps/cli/src/job-list.ts'
import type { Job } from '../../apps/cli/src/job.ts'
import { showJob } from '../../apps/cli/src/job-view.ts'
import { addDecisionOptions, readChoice } from '../../apps/cli/src/job-choice.ts'
import { showAttempts, spendTable, twiceTable } from '../../apps/cli/src/ledger-view.ts'
import { buildProgram } from '../../apps/cli/src/program.ts'
import { banner } from '../../apps/cli/src/roles/banner.ts'
import { loadConfig } from '@askonce/config'

const id = '0199c0de-0000-7000-8000-000000000000'
const job = {
  id,
  object: 'job',
  key: 'a/key/that/is/rather/long/as/keys/of/runs/tend/to/be/0123456789',
  operation: 'chat.completions',
  model: 'gpt-4.1',
  state: 'uncertain',
  attempts: 1,
  flags: [],
  error: {
    code: 'broken_answer',
    message: 'The answer broke off or is not HTTP: the other side has closed the connection',
  },
  waiting_for: null,
  usage: { input_tokens: null, output_tokens: null, cost_usd: null, paid_attempts: 0, maybe_paid_attempts: 1 },
  metadata: {},
  created_at: '2026-01-01T00:00:00Z',
  run_at: '2026-01-01T00:00:00Z',
  expires_at: '2026-01-01T00:00:00Z',
} as unknown as Job

const totals = {
  calls: 12,
  billed: 10,
  maybe: 1,
  none: 1,
  open: 0,
  unpriced: 1,
  input_tokens: 12_345,
  output_tokens: 67_890,
  cost_usd: 0.000_752,
  duplicates: 1,
  duplicate_cost_usd: 0.000_1,
  possible_duplicates: 1,
  possible_duplicate_cost_usd: 0,
}

const attempt = {
  attempt: 1,
  generation: 1,
  outcome: 'unknown',
  billing: 'maybe',
  provider: 'anthropic',
  model: 'm',
  provider_status: 200,
  error_code: 'broken_answer',
  started_at: '2026-01-01T00:00:00Z',
  input_tokens: 1_000,
  output_tokens: 2_000,
  cost_usd: 0.000_123,
}

let printed = ''
beforeEach(() => {
  printed = ''
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => (printed += String(text)) !== '')
})
afterEach(() => {
  vi.restoreAllMocks()
})

/** From here on stdout is a terminal of so many columns, without colours. */
function terminal(columns: number): void {
  const { stdout } = process
  const was = { isTTY: stdout.isTTY, columns: stdout.columns, hasColors: stdout.hasColors }
  Object.assign(stdout, { isTTY: true, columns, hasColors: () => false })
  restores.push(() => Object.assign(stdout, was))
}
const restores: (() => void)[] = []
afterEach(() => {
  for (const restore of restores.splice(0)) restore()
})

const widest = (text: string): number => Math.max(...text.split('\n').map((line) => line.length))

describe('tables', () => {
  const tables: [string, () => string][] = [
    ['jobs', () => jobTable([job])],
    [
      'attempts',
      () => {
        showAttempts({ data: [attempt], has_more: false, summary: totals })
        return printed
      },
    ],
    [
      'spend by model',
      () =>
        spendTable(
          [{ ...totals, date: '2026-01-01', provider: 'anthropic', model: 'claude-sonnet-4-5' }],
          totals,
          true,
        ),
    ],
    [
      'jobs that wait',
      () =>
        jobTable([
          {
            ...job,
            state: 'queued',
            waiting_for: { kind: 'tenant_limit', name: 'tokens_per_minute', reason: 'x', until: null },
          },
        ]),
    ],
    ['what was paid twice', () => twiceTable([{ ...totals, key: job.key, job_id: id }])],
  ]

  it.each(tables)('%s fit 80 columns', (_, make) => {
    terminal(80)
    expect(widest(make())).toBeLessThanOrEqual(80)
  })

  it('leave nothing out where there is room, or no terminal', () => {
    for (const columns of ['CREATED', 'EXPIRES', 'ERROR', job.key]) expect(jobTable([job])).toContain(columns)
    terminal(200)
    expect(jobTable([job])).toContain('EXPIRES')
  })

  it('show what jobs wait for, where one waits', () => {
    const waits = { kind: 'budget', name: 'day', reason: 'x', until: null } as const
    expect(jobTable([job])).not.toContain('WAITS FOR')
    expect(jobTable([job, { ...job, waiting_for: waits }])).toMatch(/WAITS FOR[^]* - [^]* budget day /)
  })
})

describe('a job', () => {
  const response = JSON.stringify({ choices: [{ message: { content: 'word '.repeat(40).trim() } }] })

  it('breaks its lines and its answer between words on a terminal', () => {
    terminal(40)
    showJob({ job, response }, '', false)
    expect(widest(printed)).toBeLessThanOrEqual(job.key.length + 10)
    expect(printed).toMatch(
      /^error {5}broken_answer: The answer\n {10}broke off or is not HTTP: the\n {10}other side has closed the\n/m,
    )
    expect(printed).toMatch(/^word( word){7}$/m)
  })

  const midnight = '2026-12-01T00:00:00.000Z'
  const soon = new Date(Date.now() + 30_000).toISOString()
  it.each<[string, NonNullable<Job['waiting_for']>, string]>([
    [
      'a lane that somebody has to mend',
      { kind: 'lane', name: 'openai', reason: 'The provider refused the credentials', until: null },
      'lane openai: The provider refused the credentials. Mend it, then: askonce lanes resume openai',
    ],
    [
      'a model of a lane',
      { kind: 'lane', name: 'openai', reason: 'Model gpt-4.1: The provider asked to wait', until: soon },
      'lane openai: Model gpt-4.1: The provider asked to wait, in 30 s',
    ],
    ['its time', { kind: 'schedule', name: 'schedule', reason: 'scheduled', until: soon }, 'its time, in 30 s'],
    [
      'the backoff after an error',
      { kind: 'schedule', name: 'schedule', reason: 'provider_error', until: soon },
      'its next attempt after provider_error, in 30 s',
    ],
    [
      'a limit',
      {
        kind: 'tenant_limit',
        name: 'max_running',
        reason: 'max_running of tenant "team-a" (20, 20 running)',
        until: null,
      },
      'max_running of tenant "team-a" (20, 20 running)',
    ],
    [
      'a limit by the minute',
      {
        kind: 'tenant_limit',
        name: 'calls_per_minute',
        reason: 'calls_per_minute of tenant "team-a" (5, 5 in the last minute)',
        until: soon,
      },
      'calls_per_minute of tenant "team-a" (5, 5 in the last minute); in 30 s',
    ],
    [
      'a budget',
      {
        kind: 'budget',
        name: 'day',
        reason: 'the budget of the day of tenant "team-a" ($5.00, $4.98 used; this call can cost $0.0500)',
        until: midnight,
      },
      'the budget of the day of tenant "team-a" ($5.00, $4.98 used; this call can cost $0.0500); it resets 2026-12-01 00:00 UTC',
    ],
  ])('says in words that it waits for %s', (_, waits, words) => {
    showJob({ job: { ...job, state: 'queued', waiting_for: waits }, response: null }, '', false)
    expect(printed).toContain(`\nwaits for ${words}\n`)
  })

  it('stays as it is elsewhere', () => {
    showJob({ job, response }, '', false)
    expect(printed).toContain(`\n${'word '.repeat(40).trim()}\n`)
  })
})

describe('texts', () => {
  it('of help end their lines with sentences: the width is the terminal’s', () => {
    const all = (command: Command): Command[] => [command, ...command.commands.flatMap(all)]
    for (const command of all(buildProgram())) {
      for (const line of command.description().split('\n').slice(0, -1)) expect(line).toMatch(/[.:]$/)
    }
  })

  it('of the start fit 80 columns, but for the request to paste', () => {
    const text = banner({
      config: loadConfig({}),
      address: 'http://127.0.0.1:8787',
      key: 'k'.repeat(35),
      place: 'here',
    })
    const lines = text.split('\n').filter((line) => !line.startsWith("    -d '"))
    expect(lines.filter((line) => line.length > 80)).toEqual([])
  })

  it.each(['fail', 'cancel', 'delete'] as const)('of %s name only options that it has', async (action) => {
    const has = addDecisionOptions(new Command(), action).options.map(({ long }) => long)
    const error: unknown = await readChoice([], {}, action).catch((thrown: unknown) => thrown)
    const named = (error as { hint: string }).hint.match(/--[a-z-]+/g) ?? []
    expect(named).not.toEqual([])
    for (const option of named) expect(has).toContain(option)
  })
})
