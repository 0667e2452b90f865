import { randomUUID } from 'node:crypto'
import {
  decideEnd,
  endActions,
  jobStates,
  mayRun,
  uncertainPolicies,
  type AttemptEnd,
  type Decision,
  type DecisionColumns,
} from '@askonce/core'
import { endAttempts, type EndedAttempt } from '@askonce/store'
import { sql } from 'kysely'
import { expect, it } from 'vitest'
import { ending, sha, uncertainTtlSeconds, useStore } from './fixture.ts'

const store = useStore()

interface Case {
  id: string
  job: DecisionColumns
  end: AttemptEnd
  /** Whether the attempt had ended as `maybe` before. */
  late: boolean
}

/** paid, max_paid_attempts, consented_paid: on and beside each boundary, before and after the attempt gives its payment back. */
const money = [
  [1, 1, 0],
  [1, 2, 0],
  [1, 1, 2],
  [2, 2, 0],
  [2, 3, 0],
  [2, 1, 2],
  [2, 1, 3],
  [3, 2, 3],
  [3, 3, 4],
] as const

const booleans = [false, true] as const
const ends = endActions.flatMap((action): AttemptEnd[] => {
  const end = { attempt: 1, generation: 1, action }
  if (action === 'answer' || action === 'unstorable') return [{ ...end, billing: 'billed', uncounted: false }]
  return [
    { ...end, billing: 'none', uncounted: false },
    { ...end, billing: 'none', uncounted: true },
    { ...end, billing: 'maybe', uncounted: false },
  ]
})

/** Every row that the CHECK constraints allow, with every end of its attempt 1. */
function* everyCase(): Generator<Case> {
  for (const state of jobStates)
    for (const expired of booleans)
      for (const onUncertain of uncertainPolicies)
        for (const [paid, maxPaidAttempts, consentedPaid] of money)
          for (const tries of [1, 2])
            for (const generation of [1, 2])
              for (const overdue of booleans)
                for (const attempt of [1, 2]) {
                  const terminal = state === 'succeeded' || state === 'failed' || state === 'cancelled'
                  // What an ended job does depends on its state and expiry alone: money and tries are not asked.
                  const told = terminal ? maxPaidAttempts === 2 && !overdue : !expired
                  const columns = { paid, maxPaidAttempts, consentedPaid, onUncertain, maxAttempts: 2, generation }
                  const job = { ...columns, state, attempt, tries, expired, overdue }
                  if (!told || (state === 'queued' && (tries === 2 || !mayRun(job)))) continue
                  for (const end of ends) {
                    yield { id: randomUUID(), job, end, late: false }
                    if (end.billing !== 'maybe' && tries === 1) {
                      yield { id: randomUUID(), job, end, late: true }
                    }
                  }
                }
}

async function insert(cases: readonly Case[]): Promise<void> {
  const rows = JSON.stringify(cases.map(({ id, job, late }) => ({ id, late, ...job })))
  await sql`
    with c as (
      select * from jsonb_to_recordset(${rows}::jsonb) as c (
        id uuid, late boolean, state text, attempt int, tries int, "maxAttempts" int, generation int, expired boolean,
        overdue boolean, paid int, "maxPaidAttempts" int, "consentedPaid" int, "onUncertain" text
      )
    ),
    opened as (
      insert into attempts (
        job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model, worker_id,
        finished_at, outcome, billing
      )
      select
        id, 1, 1, 'default', id::text, ${sha('one')}, 'responses', 'l', 'm', id,
        case when late then now() end, case when late then 'lost' end, case when late then 'maybe' end
      from c
    )
    insert into jobs (
      id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms, ttl_seconds,
      deadline_seconds, state, generation, attempt, on_uncertain, max_attempts, max_paid_attempts, tries, paid, consented_paid,
      run_at, deadline_at, started_at, response_status, answer_attempt, error, uncertain_since, completed_at, expires_at
    )
    select
      id, 'default', id::text, ${sha('one')}, 'responses', 'm', 'l', 5, 1, 60, 60, state, generation, attempt, "onUncertain",
      "maxAttempts", "maxPaidAttempts", tries, paid, "consentedPaid", now(),
      now() + case when overdue then interval '0' else interval '1 hour' end, now(),
      case when state = 'succeeded' then 200 end,
      case when state = 'succeeded' then 9 end, case when state = 'failed' then '{"code":"before"}'::jsonb end,
      case when state = 'uncertain' then now() end,
      case when state in ('succeeded', 'failed', 'cancelled') then now() end,
      case when state in ('succeeded', 'failed', 'cancelled') then
        now() + case when expired then interval '0' else interval '1 hour' end
      end
    from c
  `.execute(store.db)
}

interface Written {
  id: string
  state: string
  paid: number
  tries: number
  billed: number
  code: string | null
  outcome: string
  billing: string
}

/** How the statement's effect reads in the words of decideEnd, and what else must be true of it. */
function expected({ job, end, late }: Case, decision: Decision): Omit<Written, 'id'> {
  const { next } = decision
  const before = job.state === 'failed' ? 'before' : null
  const told = decision.deadlineExceeded ? 'deadline_exceeded' : 'provider_error'
  return {
    state: next ?? job.state,
    paid: decision.paid,
    tries: decision.tries,
    billed: end.billing === 'billed' ? 1 : 0,
    code: next === 'succeeded' ? null : decision.owned ? told : before,
    outcome: end.action === 'answer' && next === null ? 'surplus' : ending('', end.action).outcome,
    billing: late && end.billing === 'maybe' ? 'maybe' : end.billing,
  }
}

it('does in SQL exactly what decideEnd says, for every combination of columns', { timeout: 300_000 }, async () => {
  const cases = [...everyCase()]
  expect(cases.length).toBeGreaterThan(10_000)
  for (let start = 0; start < cases.length; start += 1_000) {
    const batch = cases.slice(start, start + 1_000)
    await insert(batch)
    const records = batch.map(({ id, end: { action, billing, uncounted } }) =>
      ending(id, action, { billing, uncounted }),
    )
    const reported = new Map<string, EndedAttempt>(
      (await endAttempts(store.db, records, uncertainTtlSeconds)).map((ended) => [ended.jobId, ended]),
    )
    const written = await store.query<Written>(
      `select j.id, j.state, j.paid, j.tries, j.billed, j.error->>'code' as code, a.outcome, a.billing
       from jobs j join attempts a on a.job_id = j.id where j.id = any($1)`,
      [batch.map(({ id }) => id)],
    )
    const rows = new Map(written.map(({ id, ...row }) => [id, row]))
    const wrong = batch
      .map((given) => {
        const decision = decideEnd(given.job, given.end)
        const { recorded, movedTo, state } = reported.get(given.id) ?? {}
        const want = {
          ...expected(given, decision),
          recorded: true,
          movedTo: decision.next,
          reported: decision.next ?? given.job.state,
        }
        const got = { ...rows.get(given.id), recorded, movedTo, reported: state }
        return { job: given.job, end: given.end, late: given.late, want, got }
      })
      .filter(({ want, got }) => Object.entries(want).some(([name, value]) => got[name as keyof typeof got] !== value))
    expect(wrong.slice(0, 3)).toEqual([])
  }
})
