import { createHash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { AttemptEndRecord } from '@askonce/store'
import { z } from 'zod'

/** What is wrong with a file of the spool. */
export type SpoolFault = 'empty' | 'damaged' | 'version' | 'misnamed' | 'not_a_file' | 'unreadable' | 'too_large'

/** A file that cannot be delivered as it is; the message is our own words, for the log. */
export class SpoolError extends Error {
  readonly fault: SpoolFault

  constructor(fault: SpoolFault, message: string) {
    super(message)
    this.fault = fault
  }
}

/** An answer on disk. */
export interface SpoolRecord {
  /** Identity of the database that the job lives in. */
  database: string
  tenant: string
  /** Its action is `answer`, and its response is there. */
  end: AttemptEndRecord
}

const version = 1
const firstLine = /^askonce-answer (\d{1,9}) ([0-9a-f]{64})\n/
/** Longest first line, in bytes. */
const firstLineBytes = 100

const count = z.number().int().min(0)

const metaSchema = z.strictObject({
  database: z.string().min(1),
  tenant: z.string().min(1),
  bytes: count,
  end: z.strictObject({
    jobId: z.uuid(),
    attempt: count.min(1),
    action: z.literal('answer'),
    outcome: z.literal('answered'),
    billing: z.literal('billed'),
    uncounted: z.literal(false),
    onlyOpen: z.literal(false),
    delayMs: count,
    backoff: z.boolean(),
    error: z.null(),
    errorCode: z.null(),
    providerStatus: count.nullable(),
    providerRequestId: z.string().nullable(),
    inputTokens: count.nullable(),
    outputTokens: count.nullable(),
    costUsd: z.number().min(0).nullable(),
    contentType: z.string().nullable(),
    // Records of versions that knew no ids have none.
    answerId: z.string().nullable().default(null),
    errorResponse: z.null().default(null),
    errorContentType: z.null().default(null),
    responsePieces: z.null().default(null),
    responseBytes: z.null().default(null),
    flags: z.array(z.string()),
  }),
})

/** Of the file that holds this attempt's answer. */
export function recordName({ jobId, attempt }: Pick<AttemptEndRecord, 'jobId' | 'attempt'>): string {
  return `${jobId}.${attempt}.answer`
}

export function isRecordName(name: string): boolean {
  return /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.\d{1,10}\.answer$/.test(name)
}

/**
 * The content of a file, in pieces, so that a large answer is not copied: a line with the format's version and the SHA-256 of
 * everything behind it, a line of JSON with all else, and the answer's bytes as they came.
 */
export async function encodeRecord({ database, tenant, end: { response, ...end } }: SpoolRecord): Promise<Buffer[]> {
  const answer = response ?? Buffer.alloc(0)
  const meta: z.input<typeof metaSchema> = {
    database,
    tenant,
    bytes: answer.length,
    // What is not an answer is never given to the spool; the reading side checks it.
    end: end as z.input<typeof metaSchema>['end'],
  }
  const line = Buffer.from(`${JSON.stringify(meta)}\n`)
  const sum = await sha256([line, answer])
  return [Buffer.from(`askonce-answer ${version} ${sum}\n`), line, answer]
}

/** Throws a {@link SpoolError} unless every byte is what was written. The answer shares the memory of `content`. */
export async function decodeRecord(content: Buffer): Promise<SpoolRecord> {
  if (content.length === 0) throw new SpoolError('empty', 'the file is empty')
  const head = firstLine.exec(content.toString('latin1', 0, firstLineBytes))
  if (head === null) throw new SpoolError('damaged', 'the file does not begin as a record does')
  if (Number(head[1]) !== version) {
    throw new SpoolError('version', `the record has format ${head[1]}, and this version reads format ${version}`)
  }
  const rest = content.subarray(head[0].length)
  if ((await sha256([rest])) !== head[2]) {
    throw new SpoolError('damaged', 'the record does not match its checksum: cut short or changed')
  }
  const lineEnd = rest.indexOf('\n')
  const meta = metaSchema.safeParse(parseJson(rest.toString('utf8', 0, Math.max(lineEnd, 0))))
  if (!meta.success) throw new SpoolError('damaged', 'the record does not hold what a record must hold')
  const response = rest.subarray(lineEnd + 1)
  const { database, tenant, bytes, end } = meta.data
  if (response.length !== bytes) throw new SpoolError('damaged', 'the answer has another length than the record says')
  return { database, tenant, end: { ...end, response } }
}

/** What the event loop may spend on at once. */
const hashedAtOnce = 4 * 1024 * 1024

/** In hexadecimal. Others get their turn between the pieces of a large answer. */
async function sha256(parts: readonly Buffer[]): Promise<string> {
  const hash = createHash('sha256')
  for (const part of parts) {
    for (let start = 0; start < part.length; start += hashedAtOnce) {
      if (start > 0) await nextTurn()
      hash.update(part.subarray(start, start + hashedAtOnce))
    }
  }
  return hash.digest('hex')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return null
  }
}
