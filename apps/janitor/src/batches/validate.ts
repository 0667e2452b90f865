import { isUtf8 } from 'node:buffer'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Config } from '@askonce/config'
import { createLineCheck, type JobFactory, type LineFault } from '@askonce/intake'
import { dropScan, readFileSize, recordScan, startBatch } from '@askonce/store'
import type { BatchFault, Db, LeasedBatch, ScannedLine } from '@askonce/store'
import { uuidv7 } from 'uuidv7'
import { leaseMs } from './lease.ts'
import { LineReader } from './line-reader.ts'

/** Lines and bytes that are recorded at once. */
const groupLines = 500
const groupBytes = 2 * 1024 * 1024
/** One batch may be looked at for so long before others get their turn. */
const sliceMs = 1_500
/** The event loop is shared: with the API, in `askonce start`. */
const yieldAfterMs = 10
/** Faults that are told; more, and the rest of the file is not read. */
const maxFaults = 100
const maxLines = { openai: 50_000, anthropic: 100_000 } as const
/** What a line may have besides its request. */
const envelopeBytes = 64 * 1024

interface Validation {
  db: Db
  config: Config
  factory: JobFactory
}

/** `more`: the file goes on. `lost`: somebody else has the batch. */
export type Validated = 'more' | 'started' | 'failed' | 'lost'

/**
 * Validates the next piece of a batch's input. What was found is recorded group by group, so a crash goes on behind the last group;
 * nothing runs before the whole file was good.
 */
export async function validateSlice({ db, config, factory }: Validation, batch: LeasedBatch): Promise<Validated> {
  const { kind, operation, endpoint, key_prefix: keyPrefix, input_file_id: fileId } = batch
  const check = createLineCheck({ factory, kind, operation, endpoint, keyPrefix })
  const reader = new LineReader(db, fileId, batch.scan_bytes, config.limits.maxRequestBytes + envelopeBytes)
  const stopAt = performance.now() + sliceMs
  const errors = [...batch.errors]
  let { scan_bytes: bytes, scan_lines: lines, total } = batch
  let ended = false

  const fail = async (more: BatchFault[] = []): Promise<Validated> => {
    const told = [...errors, ...more].slice(0, maxFaults)
    return (await dropScan(db, batch, { status: 'failed', errors: told })) ? 'failed' : 'lost'
  }
  const whole = (code: string, message: string): BatchFault => ({ code, message, param: null, line: null })

  while (!ended) {
    if (performance.now() > stopAt) return 'more'
    const found: ScannedLine[] = []
    const groupStart = bytes
    let turnEndsAt = performance.now() + yieldAfterMs
    while (found.length < groupLines && bytes - groupStart < groupBytes && errors.length < maxFaults) {
      const next = await reader.next()
      if (next.kind === 'end') {
        // Deleted under our hands, or cut: that is not the end of the file.
        if (next.at !== (await readFileSize(db, fileId)))
          return fail([whole('file_not_found', 'The input file is gone.')])
        ended = true
        break
      }
      lines += 1
      if (next.kind === 'too_long') {
        const message = `The line is longer than this server accepts (${config.limits.maxRequestBytes} bytes for a request).`
        return fail([{ code: 'invalid_request', message, param: null, line: lines }])
      }
      bytes = next.end
      const read = readLine(next.bytes, lines, check, kind)
      if (read === null) continue
      if ('fault' in read) errors.push({ ...read.fault, line: lines })
      else found.push(read.line)
      if (total + found.length > maxLines[kind]) {
        return fail([whole('too_many_tasks', `The file has more than ${maxLines[kind]} requests.`)])
      }
      if (performance.now() > turnEndsAt) {
        await nextTurn()
        turnEndsAt = performance.now() + yieldAfterMs
      }
    }
    const twice = await recordScan(db, batch, { bytes, lines, errors, found, leaseMs }, duplicate)
    if (twice === null) return 'lost'
    errors.push(...twice)
    total += found.length - twice.length
    if (errors.length >= maxFaults) return fail()
  }
  if (errors.length > 0) return fail()
  if (total === 0) return fail([whole('empty_file', 'The file holds no request.')])
  return (await startBatch(db, batch)) ? 'started' : 'lost'
}

function duplicate(line: number): BatchFault {
  return {
    code: 'duplicate_custom_id',
    message: 'The custom_id of this line is on an earlier line too.',
    param: '/custom_id',
    line,
  }
}

/** Null: an empty line. */
function readLine(
  bytes: Buffer,
  number: number,
  check: ReturnType<typeof createLineCheck>,
  kind: LeasedBatch['kind'],
): { line: ScannedLine } | { fault: LineFault } | null {
  if (!isUtf8(bytes)) {
    return { fault: { code: 'invalid_json_line', message: 'The line is not UTF-8.', param: null } }
  }
  const text = bytes.toString()
  if (text.trim() === '') return null
  const checked = check(text)
  if (checked.ok) {
    const { fingerprint, model, lane, request, id } = checked.job
    const { customId } = checked
    return { line: { line: number, customId, fingerprint, model, lane, request, jobId: id, refusal: null } }
  }
  // Anthropic's API takes the batch and answers such a request with its error.
  if (kind !== 'anthropic' || checked.customId === null) return { fault: checked.fault }
  const { code, message } = checked.fault
  const none = Buffer.alloc(0)
  const { customId } = checked
  const refusal = JSON.stringify({ code, message })
  return {
    line: { line: number, customId, fingerprint: none, model: '', lane: '', request: none, jobId: uuidv7(), refusal },
  }
}
