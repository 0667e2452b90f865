import { billings, decisionActions, jobStates, outcomes } from '@askonce/core'
import { z } from 'zod'
import { dollars, listOf, tokens, utc } from './common.ts'

export const attempt = z.strictObject({
  attempt: z.int(),
  generation: z.int(),
  outcome: z.enum(outcomes).nullable().describe('Null while it runs'),
  billing: z.enum(billings).nullable(),
  provider: z.string().describe('The lane that was asked'),
  model: z.string(),
  worker: z.uuid(),
  provider_status: z.int().nullable(),
  error_code: z.string().nullable(),
  provider_request_id: z.string().nullable(),
  started_at: utc,
  finished_at: utc.nullable(),
  input_tokens: tokens,
  output_tokens: tokens,
  cost_usd: dollars,
})

const totals = {
  calls: z.int().describe('Attempts: each is at most one request to the provider'),
  billed: z.int(),
  maybe: z.int().describe('May have been billed'),
  none: z.int().describe('Proved not to have been billed'),
  open: z.int().describe('Without an end so far'),
  unpriced: z.int().describe('Billed at a price that is not known here, and so missing in cost_usd'),
  input_tokens: z.int(),
  output_tokens: z.int(),
  duplicates: z.int().describe('Billed besides the attempt of the same job that is kept'),
  possible_duplicates: z.int().describe('Open or maybe billed besides the attempt that is kept'),
  cost_usd: z
    .number()
    .nullable()
    .describe('US dollars, an exact decimal; null: something was billed or may have been, and no price is known'),
  duplicate_cost_usd: z.number().nullable().describe('The part of it that paid for duplicates'),
  possible_duplicate_cost_usd: z
    .number()
    .nullable()
    .describe('An estimate, and no part of cost_usd: possible duplicates at the cost of the attempt that is kept'),
}

export const ledgerSummary = z.strictObject({
  duplicate: z.enum(['no', 'maybe', 'yes']).describe('Whether anything was paid for twice; maybe: nobody knows'),
  ...totals,
})

export const attemptList = listOf(attempt).extend({ summary: ledgerSummary })

export const keyAttempt = attempt.extend({ job_id: z.uuid().describe('A key that expired names another job') })

export const keyAttemptList = listOf(keyAttempt).extend({ summary: ledgerSummary })

export const decision = z.strictObject({
  id: z.int(),
  at: utc,
  action: z.enum(decisionActions),
  accept_duplicate_charge: z.boolean(),
  reason: z.string().nullable(),
  by: z.strictObject({ key_id: z.uuid(), key_name: z.string() }).describe('The API key that asked'),
  from_state: z.enum(jobStates),
  to_state: z.enum([...jobStates, 'deleted']),
  attempts: z.int().describe('Attempts before it'),
  generation: z.int().describe('Generation before it'),
  paid_attempts: z.int().describe('Attempts that were open, billed or maybe billed before it'),
})

export const decisionList = listOf(decision)

export const spendRow = z.strictObject({
  date: z.iso.date().describe('In the time zone that was asked for'),
  provider: z.string().optional().describe('The lane; with group_by=model'),
  model: z.string().optional().describe('With group_by=model'),
  ...totals,
})

const spentTwice = z.strictObject({
  key: z.string(),
  job_id: z.uuid(),
  duplicates: z.int(),
  possible_duplicates: z.int(),
  duplicate_cost_usd: dollars,
  possible_duplicate_cost_usd: dollars,
})

export const spendSummary = z.strictObject({
  from: z.iso.date().describe('First day'),
  to: z.iso.date().describe('Last day'),
  since: utc,
  until: utc.describe('Left out'),
  tz: z.string(),
  ...totals,
  twice: z.array(spentTwice).describe('Jobs behind the duplicates, at most 100, the latest first'),
})

export const spendList = listOf(spendRow).extend({ summary: spendSummary })
