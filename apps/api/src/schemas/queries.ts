import { jobStates, waitKinds } from '@askonce/core'
import { metadata, timestamp } from '@askonce/intake'
import { z } from 'zod'
import { maxWaitSeconds } from '../prefer.ts'
import { keyPrefix } from './common.ts'

const once = { error: 'must be given once' }

/** A whole number in a query; what it must be is said by whoever reads it. Described as the number that it is. */
const digits = (meta: { minimum: number; maximum?: number; default?: number }) =>
  z.string(once).meta({ type: 'integer', ...meta })

export const noQuery = z.strictObject({})
/** Consent of those who cannot send a body. */
export const consentQuery = z.strictObject({
  accept_duplicate_charge: z
    .enum(['true', 'false'], { error: 'must be true or false' })
    .optional()
    .describe('Accepts that what was or may have been paid for can be paid for again'),
})
/** For probes, whose authors add what they like. */
export const anyQuery = z.looseObject({})

export const waitQuery = z.strictObject({
  wait: digits({ minimum: 0, maximum: maxWaitSeconds })
    .optional()
    .describe(`Seconds to wait until the job has settled, 0 to ${maxWaitSeconds}`),
})

/** `metadata=name=value`, as often as wanted. */
const metadataQuery = z
  .union([z.string(), z.array(z.string())])
  .transform((given, context) => {
    const pairs = [given].flat().map((text): [string, string] => {
      const at = text.indexOf('=')
      if (at < 1) context.addIssue({ code: 'custom', message: 'must be name=value' })
      return [text.slice(0, at), text.slice(at + 1)]
    })
    return Object.fromEntries(pairs)
  })
  .pipe(metadata)

const day = z.string(once).pipe(z.iso.date({ error: 'must be a day, such as 2026-01-31' }))

/** A day, a time of it, or a time with an offset; what a plus sign becomes in a query is put right. */
const moment = z
  .string(once)
  .transform((text) => text.replace(/ (?=\d\d:\d\d$)/, '+'))
  .pipe(
    z.union([z.iso.date(), z.iso.datetime({ local: true, offset: true })], {
      error: 'must be a day or a time, such as 2026-01-31, 2026-01-31T12:00 or 2026-01-31T12:00:00Z',
    }),
  )

const timeZone = z.string(once).refine(isTimeZone, 'must be an IANA time zone, such as Europe/Berlin')

function isTimeZone(name: string): boolean {
  // Offsets are time zones for JavaScript, and mean the opposite to Postgres.
  if (!/^[A-Za-z][A-Za-z0-9_+/-]{1,63}$/.test(name)) return false
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}

export const spendQuery = z.strictObject({
  from: day.optional().describe('First day; default 29 days before `to`'),
  to: day.optional().describe('Last day; default today'),
  since: moment.optional().describe('Instead of `from`: from this day or time on; default 30 days before `until`'),
  until: moment.optional().describe('Instead of `to`: up to this day or time, which is left out; default now'),
  tz: timeZone.optional().describe('IANA time zone of days, and of times without an offset; default UTC'),
  key_prefix: keyPrefix.optional().describe('Only what keys cost that begin with this'),
  metadata: metadataQuery.optional().describe('`name=value`: only what jobs with this metadata cost; repeatable'),
  simulated: z
    .enum(['true', 'false'], { error: 'must be true or false' })
    .optional()
    .describe('`true`: what the simulator was asked, which costs nothing, instead of all else'),
  group_by: z
    .enum(['model'], { error: 'must be model' })
    .optional()
    .describe('`model`: a row for each day, lane and model'),
})

const maxPageSize = 200
const defaultPageSize = 50

const page = (things: string) => ({
  limit: z
    .string(once)
    .refine((text) => /^\d{1,4}$/.test(text) && Number(text) >= 1 && Number(text) <= maxPageSize, {
      error: `must be an integer from 1 to ${maxPageSize}`,
    })
    .meta({ type: 'integer', minimum: 1, maximum: maxPageSize, default: defaultPageSize })
    .optional()
    .describe(`${things} per page, at most ${maxPageSize}; default ${defaultPageSize}`),
  cursor: z.string(once).optional().describe('`next_cursor` of the page before'),
})

/** How many are asked for. */
export function pageSizeOf({ limit }: { limit?: string | undefined }): number {
  return limit === undefined ? defaultPageSize : Number(limit)
}

const listed = z.strictObject({
  key: z.string(once).optional().describe('The one job with this key'),
  state: z.enum(jobStates, { error: `must be one of ${jobStates.join(', ')}` }).optional(),
  // A plus sign in a query is read as a space.
  created_after: z
    .string(once)
    .transform((text) => text.replace(' ', '+'))
    .pipe(timestamp)
    .optional()
    .describe('Later than this, RFC 3339'),
  metadata: metadataQuery
    .optional()
    .describe('`name=value`: jobs with this metadata; repeatable, all of them must fit'),
  key_prefix: keyPrefix.optional().describe('Jobs whose key begins with this, in the order of keys'),
  paid: z
    .enum(['maybe', 'twice'], { error: 'must be maybe or twice' })
    .optional()
    .describe(
      '`maybe`: something was called and may have been billed. `twice`: more than one call was or may have been billed',
    ),
  waiting_for: z
    .enum(waitKinds, { error: `must be one of ${waitKinds.join(', ')}` })
    .optional()
    .describe(
      'Queued jobs that wait for this, newest first; goes with `created_after` only. A page looks at 5,000 queued jobs at most: it may be short, or empty, while `has_more` is true',
    ),
  ...page('Jobs'),
})

/** What a list of jobs that wait can be narrowed by: it is read from what is queued, which has nothing else. */
const withWaiting = new Set(['waiting_for', 'created_after', 'limit', 'cursor'])

export const listQuery = listed.superRefine((query, context) => {
  if (query.waiting_for === undefined) return
  for (const name of Object.keys(query)) {
    if (withWaiting.has(name)) continue
    context.addIssue({ code: 'custom', message: 'does not go together with waiting_for', path: [name] })
  }
})

export const attemptsQuery = z.strictObject({
  key: z.string(once).describe('The key whose attempts are meant'),
  ...page('Attempts'),
})
