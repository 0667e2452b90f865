import { operations, uncertainPolicies } from '@askonce/core'
import type { Config } from '@askonce/config'
import { z } from 'zod'
import { integer, metadata, timestamp } from './common.ts'

/** Longest delay, run_at and deadline: a year. */
export const yearSeconds = 31_536_000
const maxTimeoutSeconds = 86_400
export const maxBulkItems = 10_000

const anyObject = z.looseObject({}, { error: 'must be an object: the body that the provider gets' })

const seconds = (ms: number): string => String(Math.floor(ms / 1000))

/** The envelope of a submission; `request` is checked by operation afterwards. */
export function submissionSchema(limits: Config['limits']) {
  return deliveryOptions(limits).extend({
    operation: z.enum(operations, { error: `must be one of ${operations.join(', ')}` }).describe('The provider’s call'),
    request: anyObject.describe('The provider’s own body, sent as it is; its shape depends on `operation`'),
    stream: z
      .boolean({ error: 'must be true or false' })
      .optional()
      .describe(
        'The provider streams the answer: follow it at `/v1/jobs/{id}/events`. Part of the request that the key names',
      ),
  })
}

/** Everything of a submission that is not part of what the key names. A tenant may have defaults of its own. */
export function deliveryOptions(limits: Config['limits']) {
  const ttl = Math.floor(limits.maxTtlMs / 1000)
  return z.strictObject({
    priority: integer(0, 9).optional().describe('0 goes first, 9 last; default 5'),
    run_at: timestamp
      .optional()
      .describe('Not before this time, at most a year ahead. Not together with `delay_seconds`'),
    delay_seconds: integer(0, yearSeconds).optional().describe('Not before so many seconds from now'),
    ttl_seconds: integer(1, ttl)
      .optional()
      .describe(`How long the finished job is kept; default ${seconds(limits.defaultTtlMs)}`),
    deadline_seconds: integer(1, yearSeconds)
      .optional()
      .describe(`Fails if still queued so long after it was due; default ${seconds(limits.defaultDeadlineMs)}`),
    timeout_seconds: integer(1, maxTimeoutSeconds)
      .optional()
      .describe(`How long one call may take; default ${seconds(limits.defaultTimeoutMs)}`),
    max_attempts: integer(1, 100)
      .optional()
      .describe(`Most calls per request to run; default ${limits.defaultMaxAttempts}`),
    max_paid_attempts: integer(1, 10)
      .optional()
      .describe(
        `Most calls that may have been billed, unless somebody consents to more; default ${limits.defaultMaxPaidAttempts}`,
      ),
    on_uncertain: z
      .enum(uncertainPolicies, { error: `must be one of ${uncertainPolicies.join(', ')}` })
      .optional()
      .describe(`After a call that may have been billed without an answer; default ${limits.defaultOnUncertain}`),
    metadata: metadata.optional().describe('Up to 16 texts of your own, shown in the job'),
  })
}

export type DeliveryOptions = z.infer<ReturnType<typeof deliveryOptions>>

/** The JSON body of a bulk submission; its items are validated one by one, so that a bad one does not spoil the rest. */
export const bulkBody = z.strictObject({
  jobs: z.array(z.unknown(), { error: 'must be a list' }),
})
