import { z } from 'zod'
import { listOf, utc } from './common.ts'

export const lane = z.strictObject({
  object: z.literal('lane'),
  name: z.string(),
  kind: z.enum(['openai', 'anthropic', 'simulated']).nullable().describe('Null: not in this server’s configuration'),
  state: z.enum(['open', 'paused', 'breaker', 'stopped']),
  reason: z.string().nullable(),
  code: z.string().nullable(),
  until: utc.nullable(),
})

export const laneList = listOf(lane)

const check = z.strictObject({ ok: z.boolean(), reason: z.string().nullable() })

export const readiness = z.strictObject({
  status: z
    .enum(['ready', 'degraded', 'unavailable'])
    .describe('degraded: it serves, but a lane, the queue or the worker in this process is in trouble'),
  checks: z.strictObject({
    database: check,
    schema: check,
    queue: check,
    worker: check.optional().describe('Only where API and worker are one process (`askonce start`)'),
  }),
  lanes: z.array(lane),
})

export const health = z.strictObject({ status: z.literal('ok'), version: z.string() })
