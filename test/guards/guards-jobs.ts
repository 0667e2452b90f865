import type { Guard } from './guard.ts'

const submit = { file: 'packages/store/src/submit.ts', test: 'test/integration/store/submit.test.ts' }
const takeOver = { ...submit, file: 'packages/store/src/statements/take-over-expired.ts' }
const again = { file: 'packages/store/src/statements/run-again.ts', test: 'test/integration/store/run-again.test.ts' }
const claim = { file: 'packages/store/src/statements/claim-jobs.ts', test: 'test/integration/store/claim-jobs.test.ts' }
const dispatch = { file: 'packages/store/src/statements/dispatch.ts', test: 'test/integration/store/dispatch.test.ts' }
const sweep = { file: 'packages/store/src/statements/sweep.ts', test: 'test/integration/store/sweep.test.ts' }

/** Of the statements that make, claim, change, hand over and sweep jobs. */
export const jobGuards: readonly Guard[] = [
  {
    ...submit,
    name: 'another request under a known key is taken for the same one',
    promise: 2,
    guarded: `    else if (!row.fingerprint.equals(item.fingerprint)) settled.set(item.id, { kind: 'mismatch', job: row })\n`,
    broken: '',
  },
  {
    ...submit,
    name: 'another request under a key of the same batch is taken for the same one',
    promise: 2,
    guarded: `  if (!job.fingerprint.equals(item.fingerprint)) return { kind: 'mismatch', job }\n`,
    broken: '',
  },
  {
    ...submit,
    name: 'after a lost reply of a COMMIT, a creator does not know its own job',
    promise: 1,
    guarded: 'if (row.id === item.id) created(row)\n    else if',
    broken: 'if',
  },
  {
    ...takeOver,
    name: 'an expired key keeps its id when it is taken over',
    promise: 2,
    guarded: 'id = n.id, fingerprint',
    broken: 'fingerprint',
  },
  {
    ...takeOver,
    test: 'test/integration/store/submit-races.test.ts',
    name: 'a take-over does not ask, under the lock, whether the key is expired',
    promise: 2,
    guarded: ' and ${checked(sql`(j.expires_at <= now() or ${madeUp})`)}',
    broken: '',
  },
  {
    ...again,
    test: 'test/integration/store/submit-races.test.ts',
    name: 'a failed key runs again although it was paid for meanwhile',
    promise: 3,
    guarded: 'j.fingerprint = i.fingerprint`)} and ${mayRunUnasked}',
    broken: 'j.fingerprint = i.fingerprint`)}',
  },
  {
    ...again,
    name: 'a retry needs no consent',
    promise: 3,
    guarded: ' and (${consent}::boolean or ${mayRunUnasked}))',
    broken: ')',
  },
  {
    ...again,
    name: 'one consent allows two more payments',
    promise: 3,
    guarded: 'then t.paid + 1 else',
    broken: 'then t.paid + 2 else',
  },
  {
    ...again,
    name: 'a decision reaches jobs of another tenant',
    promise: 3,
    guarded: 'j.tenant_id = ${tenantId} and j.id',
    broken: 'j.id',
  },
  {
    ...again,
    test: 'test/integration/store/decisions.test.ts',
    name: 'a decision about another generation than the one that was seen counts',
    promise: 3,
    guarded: ' and j.generation = coalesce(${generation}::integer, j.generation) as',
    broken: ' as',
  },
  {
    ...again,
    test: 'test/integration/store/decisions.test.ts',
    name: 'a decision leaves no row that says who made it',
    promise: 3,
    guarded: 'from picked p join changed c on c.id = p.id\n    )',
    broken: 'from picked p join changed c on c.id = p.id where false\n    )',
  },
  {
    file: 'apps/api/src/job-reader.ts',
    test: 'test/contract/api/auth.test.ts',
    name: 'a job is shown to every tenant who knows its id',
    promise: 2,
    guarded: 'row?.tenant_id === tenantId ? row : null',
    broken: "tenantId === '' ? null : row",
  },
  {
    file: 'packages/store/src/statements/read-jobs.ts',
    test: 'test/integration/store/read-jobs.test.ts',
    name: 'a list shows the jobs of all tenants',
    promise: 2,
    guarded: 'sql`j.tenant_id = ${tenantId}`',
    broken: 'sql`${tenantId}::text is not null`',
  },
  {
    file: 'packages/store/src/statements/ledger.ts',
    test: 'test/integration/store/ledger.test.ts',
    name: 'the ledger of a job is shown to every tenant',
    promise: 4,
    guarded: 'a.job_id = ${jobId}::uuid and a.tenant_id = ${tenantId}',
    broken: 'a.job_id = ${jobId}::uuid and ${tenantId}::text is not null',
  },
  {
    ...claim,
    name: 'a delivery that comes twice, or after the end, is claimed again',
    promise: 3,
    guarded: "sql`j.state = 'queued' and j.run_at",
    broken: 'sql`j.run_at',
  },
  {
    ...claim,
    name: 'a job is claimed before it is due',
    promise: 3,
    guarded: ' and j.run_at <= now()',
    broken: '',
  },
  {
    ...claim,
    name: 'a job is claimed after its deadline',
    promise: 3,
    guarded: ' and j.deadline_at > now()',
    broken: '',
  },
  {
    ...claim,
    name: 'a worker that was declared dead claims',
    promise: 3,
    guarded: ' and not dead for key share',
    broken: ' for key share',
  },
  {
    ...claim,
    name: 'a claim slips in while its worker is being declared dead',
    promise: 5,
    guarded: ' and not dead for key share',
    broken: ' and not dead',
  },
  {
    ...claim,
    name: 'a claim passes through a lane that is stopped for money or credentials',
    promise: 3,
    guarded: "l.name is null or l.state = 'open'",
    broken: "true or l.state = 'open'",
  },
  {
    file: 'migrations/0001_init.sql',
    test: 'test/integration/store/schema.test.ts',
    name: 'the table takes a queued job that may not run',
    promise: 3,
    guarded: "    state <> 'queued'\n",
    broken: "    state <> 'queued' or true\n",
  },
  {
    ...dispatch,
    name: 'a hand-over that was made anew is taken back for the one before',
    promise: 5,
    guarded: ' and j.dispatch = i.dispatch',
    broken: '',
  },
  {
    ...sweep,
    name: 'a sweep deletes answers an hour before they expire',
    promise: 2,
    guarded:
      'from jobs where expires_at <= now() and id <> all(${skip}::uuid[])\n      order by expires_at limit ${limit} for update',
    broken:
      "from jobs where expires_at <= now() + interval '1 hour' and id <> all(${skip}::uuid[])\n      order by expires_at limit ${limit} for update",
  },
  {
    ...sweep,
    name: 'a sweep deletes jobs that have not ended',
    promise: 1,
    guarded:
      'from jobs where expires_at <= now() and id <> all(${skip}::uuid[])\n      order by expires_at limit ${limit} for update',
    broken:
      'from jobs where (expires_at is null or expires_at <= now()) and id <> all(${skip}::uuid[])\n      order by expires_at limit ${limit} for update',
  },
  {
    ...sweep,
    name: 'a sweep does not look whether somebody takes the row over',
    promise: 1,
    guarded: 'limit ${limit} for update skip locked',
    broken: 'limit ${limit}',
  },
  {
    ...sweep,
    name: 'the ledger of a job that still exists is swept',
    promise: 4,
    guarded: '\n        and not exists (select from jobs j where j.id = a.job_id)',
    broken: '',
  },
]
