import { errorRegistry, jobStates, operations, waitKinds, type ErrorCode } from '@askonce/core'
import { z } from 'zod'
import { dollars, listOf, tokens, utc } from './common.ts'
import { jobExample } from './examples.ts'

const codes = Object.keys(errorRegistry) as [ErrorCode, ...ErrorCode[]]

export const jobError = z.strictObject({
  code: z.enum(codes),
  message: z.string(),
  retryable: z.boolean(),
  provider_status: z.int().nullable(),
})

export const job = z
  .strictObject({
    id: z.uuid(),
    object: z.literal('job'),
    key: z.string(),
    operation: z.enum(operations),
    model: z.string(),
    state: z.enum(jobStates),
    generation: z.int().describe('How often it was made to run on request'),
    attempts: z.int().describe('Claims by workers so far'),
    replayed: z.boolean().describe('True where this submission started nothing'),
    streamed: z.boolean().describe('Whether its answer is a stream of events'),
    response: z
      .unknown()
      .describe('The provider’s JSON, or null; always null of a stream, and in lists, unless they ask for one key'),
    response_url: z
      .string()
      .optional()
      .describe('Where the answer is, if it is larger than 1 MiB and the job stands in a list or in an outcome'),
    error: jobError.nullable(),
    flags: z.array(z.string()).describe('`truncated`, `refused`, …'),
    waiting_for: z
      .strictObject({
        kind: z
          .enum(waitKinds)
          .describe(
            '`schedule`: its time has not come; `lane`: its lane, or its model there, is closed; `tenant_limit`, `budget`: its tenant has no more left',
          ),
        name: z
          .string()
          .describe('The lane; `max_running`, `calls_per_minute` or `tokens_per_minute`; `day` or `month` of a budget'),
        reason: z.string().describe('In words; of a rerun the code of the error that it comes after'),
        until: utc.nullable().describe('When it may go by itself; null: nobody knows, or somebody has to do something'),
      })
      .nullable()
      .describe('Why a queued job does not run; null: it waits for a free place'),
    usage: z.strictObject({
      input_tokens: tokens,
      output_tokens: tokens,
      cost_usd: dollars,
      paid_attempts: z.int().describe('Attempts that were billed'),
      maybe_paid_attempts: z.int().describe('Attempts that may have been billed'),
    }),
    metadata: z.record(z.string(), z.string()),
    created_at: utc,
    run_at: utc,
    started_at: utc.nullable(),
    completed_at: utc.nullable(),
    deadline_at: utc,
    expires_at: utc.nullable(),
  })
  .meta({ examples: [jobExample] })

export const deletedJob = z.strictObject({ id: z.uuid(), object: z.literal('job'), deleted: z.literal(true) })

/** Why one item of a bulk request got no job. */
export const itemError = z.strictObject({
  message: z.string(),
  type: z.string(),
  param: z.string().nullable().describe('A JSON pointer into the item'),
  code: z.enum(codes),
  retryable: z.boolean(),
  pointers: z.array(z.string()).optional(),
  state: z.enum(jobStates).optional(),
})

const outcome = { index: z.int(), status: z.int(), job: job.optional(), error: itemError.optional() }

/** What became of one item of a bulk submission: the status and the job, or the error, that it would have got alone. */
export const submissionOutcome = z.strictObject(outcome)

/** The same for a change of jobs that exist. */
export const changeOutcome = z.strictObject({ ...outcome, id: z.string() })

export const jobList = listOf(job)
/** What became of one job that was to be deleted; `deleted` is false where it was only asked what would be. */
const deleteOutcome = changeOutcome.extend({
  job: z.strictObject({ id: z.uuid(), object: z.literal('job'), deleted: z.boolean() }).optional(),
})
export const submissionOutcomes = listOf(submissionOutcome)
export const changeOutcomes = listOf(changeOutcome)
export const deleteOutcomes = listOf(deleteOutcome)
