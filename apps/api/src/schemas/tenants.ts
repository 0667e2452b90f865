import { tenantBounds, tenantName, tenantNameRule, uncertainPolicies } from '@askonce/core'
import { integer } from '@askonce/intake'
import { z } from 'zod'
import { listOf, utc } from './common.ts'

const { weight, maxRunning, maxQueued, submissionsPerSecond, callsPerMinute, tokensPerMinute, budgetDayUsd } =
  tenantBounds

function limit({ min, max }: { min: number; max: number }, what: string) {
  return integer(min, max).nullable().optional().describe(`${what}; null: no limit`)
}

const dollarsRule = `must be US dollars, a number from ${budgetDayUsd.min} to ${budgetDayUsd.max}`
const dollars = z
  .number({ error: dollarsRule })
  .min(budgetDayUsd.min, dollarsRule)
  .max(budgetDayUsd.max, dollarsRule)
  .nullable()
  .optional()

/** Members that may be given when a tenant is made or changed. */
const settings = {
  weight: integer(weight.min, weight.max)
    .nullable()
    .optional()
    .describe('Its share of the calls where several tenants wait; null: 1'),
  max_running: limit(maxRunning, 'Calls at once'),
  max_queued: limit(maxQueued, 'Queued jobs; beyond it submissions get 429 `backlog_full`'),
  submissions_per_second: limit(
    submissionsPerSecond,
    'New jobs a second; beyond it submissions get 429 `rate_limited`',
  ),
  calls_per_minute: limit(callsPerMinute, 'Calls that begin within any minute'),
  tokens_per_minute: limit(tokensPerMinute, 'Tokens of calls that begin within any minute'),
  budget_usd: z
    .strictObject({
      day: dollars.describe('For each day of UTC; null: no budget'),
      month: dollars.describe('For each month of UTC; null: no budget'),
    })
    .nullable()
    .optional()
    .describe('US dollars, kept by reservation; null: no budget. A member that is left out stays'),
  derive_keys: z
    .boolean({ error: 'must be true or false' })
    .optional()
    .describe('Whether SDK requests without a key get one that is made from what they ask'),
  on_uncertain: z
    .enum(uncertainPolicies, { error: `must be one of ${uncertainPolicies.join(', ')}` })
    .nullable()
    .optional()
    .describe('Where a submission says nothing; null: the server decides. So for the next four'),
  max_attempts: integer(1, 100).nullable().optional(),
  max_paid_attempts: integer(1, 10).nullable().optional(),
  ttl_seconds: integer(1, 2_147_483_647).nullable().optional(),
  timeout_seconds: integer(1, 86_400).nullable().optional(),
}

export const tenantChange = z.strictObject(settings)

export const newTenant = z.strictObject({
  id: z
    .string({ error: (issue) => (issue.input === undefined ? 'is missing' : `must be ${tenantNameRule}`) })
    .regex(tenantName, `must be ${tenantNameRule}`)
    .describe(`Its name: ${tenantNameRule}`),
  ...settings,
})

const usd = z.number().describe('US dollars')

export const tenant = z.strictObject({
  object: z.literal('tenant'),
  id: z.string(),
  weight: z.int(),
  max_running: z.int().nullable(),
  max_queued: z.int().nullable(),
  submissions_per_second: z.int().nullable(),
  calls_per_minute: z.int().nullable(),
  tokens_per_minute: z.int().nullable(),
  budget_usd: z.strictObject({ day: z.number().nullable(), month: z.number().nullable() }),
  derive_keys: z.boolean(),
  on_uncertain: z.enum(uncertainPolicies).nullable(),
  max_attempts: z.int().nullable(),
  max_paid_attempts: z.int().nullable(),
  ttl_seconds: z.int().nullable(),
  timeout_seconds: z.int().nullable(),
  created_at: utc,
})

export const tenantWithUse = tenant.extend({
  use: z.strictObject({
    running: z.int().describe('Calls under way'),
    queued: z.int(),
    usd_day: usd.describe('Spent by calls that began today, UTC'),
    usd_month: usd.describe('Spent by calls that began in this month, UTC'),
    reserved_usd: usd.describe('Reserved in this month by calls that are under way or may have been billed'),
  }),
})

export const tenantList = listOf(tenant)
