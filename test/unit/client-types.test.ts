import { errorRegistry } from '@askonce/core'
import type { z } from 'zod'
import type * as Client from '@askonce/client'
import { expect, it } from 'vitest'
import type * as job from '../../apps/api/src/schemas/job.ts'
import type * as ledger from '../../apps/api/src/schemas/ledger.ts'
import type { decisionBody, retryBody } from '../../apps/api/src/schemas/changes.ts'
import type { listQuery } from '../../apps/api/src/schemas/queries.ts'

// The client's types are written by hand, because it imports nothing. The compiler compares them here with the schemas that the API
// validates and documents with (gate `types`); what the schemas say at run time is compared in test/contract/client.

/** Codes are open in the client: a newer server may have more. Everything else must be the same both ways. */
type Plain<T> = T extends Client.ErrorCode
  ? T
  : T extends readonly (infer Item)[]
    ? Plain<Item>[]
    : T extends object
      ? { [Name in keyof T]: Name extends 'code' ? string : Plain<T[Name]> }
      : T
type Same<Left, Right> = [Plain<Left>] extends [Plain<Right>]
  ? [Plain<Right>] extends [Plain<Left>]
    ? true
    : false
  : false
type SameMembers<Left, Right> = [keyof Left] extends [keyof Right]
  ? [keyof Right] extends [keyof Left]
    ? true
    : false
  : false

const same = {
  job: true satisfies Same<Client.Job, z.infer<typeof job.job>> & SameMembers<Client.Job, z.infer<typeof job.job>>,
  jobError: true satisfies SameMembers<Client.JobError, z.infer<typeof job.jobError>>,
  deleted: true satisfies Same<Client.DeletedJob, z.infer<typeof job.deletedJob>>,
  attempt: true satisfies Same<Client.Attempt, z.infer<typeof ledger.attempt>> &
    SameMembers<Client.Attempt, z.infer<typeof ledger.attempt>>,
  summary: true satisfies Same<Client.LedgerSummary, z.infer<typeof ledger.ledgerSummary>> &
    SameMembers<Client.LedgerSummary, z.infer<typeof ledger.ledgerSummary>>,
  attempts: true satisfies SameMembers<Client.AttemptList, z.infer<typeof ledger.attemptList>>,
  decision: true satisfies SameMembers<Client.Decision, z.infer<typeof decisionBody>>,
  retry: true satisfies SameMembers<Client.RetryDecision, z.infer<typeof retryBody>>,
  query: true satisfies SameMembers<Client.JobQuery & { cursor: string }, z.infer<typeof listQuery>>,
  codes: true satisfies [keyof typeof errorRegistry] extends [Client.KnownErrorCode] ? true : false,
}

it('the types of the client are those of the API', () => {
  expect(Object.values(same)).not.toContain(false)
})
