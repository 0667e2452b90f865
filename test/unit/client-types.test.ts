import { readFileSync } from 'node:fs'
import { loadConfig } from '@askonce/config'
import { errorRegistry } from '@askonce/core'
import { submissionSchema } from '@askonce/intake'
import type { z } from 'zod'
import type * as Client from '@askonce/client'
import { expect, it } from 'vitest'
import * as job from '../../apps/api/src/schemas/job.ts'
import * as ledger from '../../apps/api/src/schemas/ledger.ts'
import * as changes from '../../apps/api/src/schemas/changes.ts'
import * as queries from '../../apps/api/src/schemas/queries.ts'

// The client's types are written by hand, because it imports nothing. The compiler compares them here with the schemas that the API
// validates and documents with (gate `types`), and the tests their members.

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

type Equal<Left, Right> = Same<Left, Right> extends true ? SameMembers<Left, Right> : false

const same = {
  job: true satisfies Equal<Client.Job, z.infer<typeof job.job>>,
  jobError: true satisfies SameMembers<Client.JobError, z.infer<typeof job.jobError>>,
  deleted: true satisfies Same<Client.DeletedJob, z.infer<typeof job.deletedJob>>,
  attempt: true satisfies Equal<Client.Attempt, z.infer<typeof ledger.attempt>>,
  summary: true satisfies Equal<Client.LedgerSummary, z.infer<typeof ledger.ledgerSummary>>,
  attempts: true satisfies SameMembers<Client.AttemptList, z.infer<typeof ledger.attemptList>>,
  decision: true satisfies SameMembers<Client.Decision, z.infer<typeof changes.decisionBody>>,
  retry: true satisfies SameMembers<Client.RetryDecision, z.infer<typeof changes.retryBody>>,
  query: true satisfies SameMembers<Client.JobQuery & { cursor: string }, z.infer<typeof queries.listQuery>>,
  codes: true satisfies [keyof typeof errorRegistry] extends [Client.KnownErrorCode] ? true : false,
}

/** Names of the members of an interface of the client, as its source has them. */
function membersOf(name: string): string[] {
  const source = readFileSync('packages/client/src/types.ts', 'utf8')
  const [, body] =
    new RegExp(`export interface ${name}(?:<Item>)? (?:extends \\S+ )?\\{\\n([^]*?)\\n\\}`).exec(source) ?? []
  if (body === undefined) throw new Error(`no interface ${name}`)
  return [...body.matchAll(/^ {2}(\w+)\??:/gm)].map(([, member = '']) => member).toSorted()
}

const limits = loadConfig({}).limits
const envelope = Object.keys(submissionSchema(limits).shape)

it.each([
  ['Job', Object.keys(job.job.shape)],
  ['JobUsage', Object.keys(job.job.shape.usage.shape)],
  ['WaitingFor', Object.keys(job.job.shape.waiting_for.unwrap().shape)],
  ['JobError', Object.keys(job.jobError.shape)],
  ['DeletedJob', Object.keys(job.deletedJob.shape)],
  ['Attempt', Object.keys(ledger.attempt.shape)],
  ['LedgerSummary', Object.keys(ledger.ledgerSummary.shape)],
  ['Page', Object.keys(job.jobList.shape)],
  ['AttemptList', Object.keys(ledger.attemptList.shape).filter((name) => name === 'summary')],
  ['Decision', Object.keys(changes.decisionBody.shape)],
  ['RetryDecision', ['accept_duplicate_charge']],
  ['JobQuery', Object.keys(queries.listQuery.shape).filter((name) => name !== 'cursor')],
  ['Submission', envelope],
])('%s has the members that the API has', (name, members) => {
  expect(membersOf(name)).toEqual(members.toSorted())
})

it('every code of the API is known, and the compiler finds the types the same', () => {
  const source = readFileSync('packages/client/src/types.ts', 'utf8')
  const known = [...source.matchAll(/^ {2}\| '(\w+)'$/gm)].map(([, code]) => code)
  expect(known).toEqual(expect.arrayContaining(Object.keys(errorRegistry)))
  expect(Object.values(same)).not.toContain(false)
})
