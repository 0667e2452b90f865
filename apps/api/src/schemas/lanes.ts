import { z } from 'zod'
import { listOf, utc } from './common.ts'

const closing = {
  state: z.enum(['open', 'paused', 'breaker', 'stopped']),
  reason: z.string().nullable(),
  code: z.string().nullable(),
  until: utc.nullable(),
}

/** What everybody may see. */
const publicLane = z.strictObject({
  object: z.literal('lane'),
  name: z.string(),
  kind: z.enum(['openai', 'anthropic', 'simulated']).nullable().describe('Null: not in this server’s configuration'),
  ...closing,
})

export const lane = publicLane.extend({
  models: z.array(z.strictObject({ model: z.string(), ...closing })).describe('Those that are paused'),
})

export const resumeRequest = z.strictObject({
  model: z.string().min(1).max(200).optional().describe('Only this model; absent: the lane and every model in it'),
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
  lanes: z.array(publicLane),
})

export const health = z.strictObject({ status: z.literal('ok'), version: z.string() })
