import { readFileSync } from 'node:fs'
import {
  billings,
  decisionActions,
  isTerminal,
  jobStates,
  mayRun,
  operations,
  outcomes,
  terminalStates,
  transitions,
  uncertainPolicies,
} from '@askonce/core'
import { withClient } from '@askonce/embedded'
import { migrate } from '@askonce/store'
import type { TestDatabase } from '@askonce/testkit'
import { describe, expect, it } from 'vitest'
import { describeSchema } from '../../../scripts/schema-text.ts'
import { inSeconds, insertAttempt, insertJob, useStore } from './fixture.ts'

const store = useStore()

/** The words that a CHECK constraint compares a column with. */
async function wordsOf(constraint: string): Promise<string[]> {
  const rows = await store.query<{ text: string }>(
    'select pg_get_constraintdef(oid) as text from pg_constraint where conname = $1',
    [constraint],
  )
  return [...(rows[0]?.text ?? '').matchAll(/'([^']+)'::text/g)].map(([, word]) => word ?? '').toSorted()
}

/** The constraint that refuses a row; null: none. */
async function refusedBy(insert: Promise<unknown>): Promise<string | null> {
  const error: unknown = await insert.then(
    () => null,
    (reason: unknown) => reason,
  )
  return (error as { constraint?: string } | null)?.constraint ?? null
}

describe('the words of the constraints are the words of the core', () => {
  it.each<[string, readonly string[]]>([
    ['jobs_state_check', jobStates],
    ['jobs_on_uncertain_check', uncertainPolicies],
    ['jobs_operation_check', operations],
    ['attempts_outcome_check', outcomes],
    ['attempts_billing_check', billings],
    ['decisions_action_check', decisionActions],
    ['api_keys_scopes_check', ['submit', 'read', 'admin', 'operator']],
    ['lanes_state_check', ['open', 'paused', 'breaker', 'stopped']],
  ])('%s', async (constraint, words) => {
    expect(await wordsOf(constraint)).toEqual(words.toSorted())
  })

  it('and terminal means the same', async () => {
    expect(await wordsOf('jobs_terminal_is_dated')).toEqual([...terminalStates].toSorted())
  })

  it('every state of the constraint is one that a transition leads to', async () => {
    const reached = new Set<string>(transitions.map(({ to }) => to))
    expect((await wordsOf('jobs_state_check')).filter((state) => !reached.has(state))).toEqual([])
  })
})

describe('the constraints couple states and columns', () => {
  it.each(jobStates)('%s is dated as it has to be, and not otherwise', async (state) => {
    expect(await refusedBy(insertJob(store, { state }))).toBeNull()
    const dated = { completed_at: inSeconds(0), expires_at: inSeconds(1) }
    const wrong = isTerminal(state) ? { completed_at: null, expires_at: null } : dated
    expect(await refusedBy(insertJob(store, { state, ...wrong }))).toBe('jobs_terminal_is_dated')
    expect(await refusedBy(insertJob(store, { state, ...dated, expires_at: null }))).toBe('jobs_terminal_is_dated')
    const held = { uncertain_since: state === 'uncertain' ? null : inSeconds(0) }
    expect(await refusedBy(insertJob(store, { state, ...held }))).toBe('jobs_uncertain_is_dated')
  })

  it.each<[string, string, Parameters<typeof insertJob>[1]]>([
    ['running without an attempt', 'jobs_running_is_claimed', { state: 'running', attempt: 0 }],
    ['running without a start', 'jobs_running_is_claimed', { state: 'running', started_at: null }],
    ['an answer without bytes', 'answers_are_whole', { state: 'succeeded', response: null }],
    ['an answer without its attempt', 'jobs_answer_is_whole', { state: 'succeeded', answer_attempt: null }],
    ['an answer without its status', 'jobs_answer_is_whole', { state: 'succeeded', response_status: null }],
    ['bytes of no attempt', 'answers_are_whole', { state: 'failed', response: Buffer.from('x') }],
    ['an answer of nothing', 'answers_say_something', { state: 'failed', response_content_type: 'text/plain' }],
    ['a failure without a reason', 'jobs_failed_says_why', { state: 'failed', error: null }],
    ['more billed than paid', 'jobs_check', { state: 'uncertain', paid: 1, billed: 2 }],
    ['negative paid', 'jobs_check', { state: 'cancelled', paid: -1 }],
    ['negative tries', 'jobs_tries_check', { tries: -1 }],
    ['a key without characters', 'jobs_idempotency_key_check', { idempotency_key: '' }],
    ['a short fingerprint', 'jobs_fingerprint_check', { fingerprint: Buffer.alloc(31) }],
    ['a priority above 9', 'jobs_priority_check', { priority: 10 }],
  ])('%s is refused', async (_, constraint, columns) => {
    expect(await refusedBy(insertJob(store, columns))).toBe(constraint)
  })

  it('one key names one row per tenant, whatever its state', async () => {
    await insertJob(store, { idempotency_key: 'once', state: 'cancelled', expires_at: inSeconds(-1) })
    expect(await refusedBy(insertJob(store, { idempotency_key: 'once' }))).toBe('jobs_key')
    expect(await refusedBy(insertJob(store, { idempotency_key: 'once', tenant_id: 'other' }))).toBeNull()
    expect(await refusedBy(insertJob(store, { idempotency_key: 'Once' }))).toBeNull()
  })

  it('a queued job is one that may run, for every combination of money and tries', async () => {
    for (const on_uncertain of uncertainPolicies)
      for (const paid of [0, 1, 2])
        for (const max_paid_attempts of [1, 2, 3])
          for (const consented_paid of [0, 1, 2, 3])
            for (const tries of [0, 1, 2]) {
              const money = {
                paid,
                maxPaidAttempts: max_paid_attempts,
                consentedPaid: consented_paid,
                onUncertain: on_uncertain,
              }
              const columns = { on_uncertain, paid, max_paid_attempts, consented_paid, tries, max_attempts: 2 }
              const allowed = mayRun(money) && tries < 2
              const refused = await refusedBy(insertJob(store, { ...columns, attempt: paid }))
              expect(refused, JSON.stringify(columns)).toBe(allowed ? null : 'jobs_queued_may_run')
            }
  })

  it('an attempt has ended in every column or in none, and has one row', async () => {
    const id = '00000000-0000-4000-8000-000000000001'
    expect(await refusedBy(insertAttempt(store, id, { outcome: 'lost' }))).toBe('attempts_end_is_whole')
    expect(await refusedBy(insertAttempt(store, id, { billing: 'maybe', outcome: null }))).toBe('attempts_end_is_whole')
    expect(await refusedBy(insertAttempt(store, id, { billing: 'maybe', finished_at: null }))).toBe(
      'attempts_end_is_whole',
    )
    expect(await refusedBy(insertAttempt(store, id))).toBeNull()
    expect(await refusedBy(insertAttempt(store, id))).toBe('attempts_pkey')
  })
})

/** A database of its own with the schema and one change to it. */
async function changed(statement: string): Promise<TestDatabase> {
  const database = await store.server.createDatabase()
  await migrate(database.url)
  await withClient(database.url, 10_000, (client) => client.query(statement))
  return database
}

describe('schema.sql', () => {
  it('is what the migrations make, on this version of PostgreSQL too', async () => {
    const stored = readFileSync(new URL('../../../schema.sql', import.meta.url), 'utf8')
    expect(await describeSchema(store.url)).toBe(stored)
  })

  it.each([
    ['a column', 'alter table lanes add column note text', '  note text,\n'],
    ['a default', 'alter table lanes alter failures set default 1', 'failures integer not null default 1'],
    ['nullability', 'alter table lanes alter failures drop not null', '  failures integer default 0'],
    [
      'a constraint',
      'alter table lanes add constraint extra check (failures < 9)',
      'constraint extra CHECK ((failures < 9))',
    ],
    ['an index', 'create index extra on lanes (state) where failures > 0', 'CREATE INDEX extra ON public.lanes'],
    ['a unique index', 'create unique index extra on lanes (lower(name))', 'CREATE UNIQUE INDEX extra ON public.lanes'],
    ['an option', 'alter table lanes set (fillfactor = 70)', ') with (fillfactor=70);'],
    [
      'a table',
      'create table extra (id bigint generated always as identity)',
      'id bigint not null generated always as identity',
    ],
    ['a function', 'create function extra() returns int language sql as $$ select 1 $$', 'FUNCTION public.extra()'],
    [
      'a trigger',
      'create trigger extra before update on lanes for each row execute function suppress_redundant_updates_trigger()',
      'CREATE TRIGGER extra BEFORE UPDATE ON public.lanes',
    ],
    [
      'a computed column',
      `alter table lanes add shout text generated always as (upper(name)) stored`,
      'as (upper(name)) stored',
    ],
  ])('would show %s', async (_, statement, line) => {
    const { url, drop } = await changed(statement)
    expect(await describeSchema(url)).toContain(line)
    await drop()
  })

  it.each([
    ['view extra', 'create view extra as select 1 as one'],
    ['type extra', `create type extra as enum ('a')`],
  ])('does not pass over %s in silence', async (what, statement) => {
    const { url, drop } = await changed(statement)
    const name = what.replace('view', 'relation')
    await expect(describeSchema(url)).rejects.toThrow(`does not know how to write: ${name}`)
    await drop()
  })
})
