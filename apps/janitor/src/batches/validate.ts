import { isUtf8 } from 'node:buffer'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Config } from '@askonce/config'
import type { Intake, LineFault, LineKind } from '@askonce/intake'
import { dropScan, readFileSize, recordScan, startBatch } from '@askonce/store'
import type { BatchFault, Db, LeasedBatch, ScannedLine } from '@askonce/store'
import { uuidv7 } from 'uuidv7'
import { leaseMs } from './lease.ts'
import { LineReader } from './line-reader.ts'

/** Lines and bytes that are recorded at once. */
const groupLines = 2_000
const groupBytes = 4 * 1024 * 1024
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
  intake: Intake
}

/** `more`: the file goes on. `lost`: somebody else has the batch. */
export type Validated = 'more' | 'started' | 'failed' | 'lost'

/**
 * Validates the next piece of a batch's input. What was found is recorded group by group, so a crash goes on behind the last group;
 * nothing runs before the whole file was good.
 */
export async function validateSlice(parts: Validation, batch: LeasedBatch): Promise<Validated> {
  const scan = new Scan(parts, batch)
  const stopAt = performance.now() + sliceMs
  let group = await scan.readGroup()
  for (;;) {
    // The next lines are read while the database takes these.
    const recorded = scan.record(group)
    const next = group.next === 'more' && performance.now() < stopAt ? scan.readGroup() : null
    await Promise.allSettled([recorded, next])
    if (!(await recorded)) return 'lost'
    if (group.next !== 'more' || scan.errors.length >= maxFaults) break
    if (next === null) return 'more'
    group = await next
  }
  return scan.finish(group)
}

/** Lines that are recorded at once. */
interface Group {
  found: ScannedLine[]
  errors: BatchFault[]
  /** Where the next group begins. */
  bytes: number
  lines: number
  /** `more`, `end` of the file, or why nothing behind it is read. */
  next: 'more' | 'end' | BatchFault
}

class Scan {
  /** Faults of what has been recorded. */
  readonly errors: BatchFault[]
  private readonly parts: Validation
  private readonly batch: LeasedBatch
  private readonly kind: LineKind
  private readonly reader: LineReader
  /** Of what has been read. */
  private bytes: number
  private lines: number
  private requests: number
  /** Lines that have been recorded. */
  private total: number

  constructor(parts: Validation, batch: LeasedBatch) {
    const { kind, operation, endpoint, key_prefix: keyPrefix, input_file_id: fileId, request_headers: headers } = batch
    this.parts = parts
    this.batch = batch
    this.kind = { kind, operation, endpoint, keyPrefix, headers }
    this.reader = new LineReader(parts.db, fileId, batch.scan_bytes, this.maxRequestBytes + envelopeBytes)
    this.errors = [...batch.errors]
    this.bytes = batch.scan_bytes
    this.lines = batch.scan_lines
    this.requests = batch.total
    this.total = batch.total
  }

  private get maxRequestBytes(): number {
    return this.parts.config.limits.maxRequestBytes
  }

  async readGroup(): Promise<Group> {
    const { kind } = this.kind
    const found: ScannedLine[] = []
    const errors: BatchFault[] = []
    const start = this.bytes
    const groupOf = (next: Group['next']): Group => ({ found, errors, bytes: this.bytes, lines: this.lines, next })
    let turnEndsAt = performance.now() + yieldAfterMs
    while (found.length < groupLines && this.bytes - start < groupBytes && errors.length < maxFaults) {
      const next = await this.reader.next()
      if (next.kind === 'end') {
        // Deleted under our hands, or cut: that is not the end of the file.
        const whole = next.at === (await readFileSize(this.parts.db, this.batch.input_file_id))
        return groupOf(whole ? 'end' : fault('file_not_found', 'The input file is gone.'))
      }
      this.lines += 1
      if (next.kind === 'too_long') {
        const message = `The line is longer than this server accepts (${this.maxRequestBytes} bytes for a request).`
        return groupOf(Object.assign(fault('invalid_request', message), { line: this.lines }))
      }
      this.bytes = next.end
      const read = await readLine(next.bytes, this.lines, this.parts.intake, this.kind)
      if (read === null) continue
      if ('fault' in read) errors.push(Object.assign({ line: this.lines }, read.fault))
      else found.push(read.line)
      this.requests += 1
      if (this.requests > maxLines[kind]) {
        return groupOf(fault('too_many_tasks', `The file has more than ${maxLines[kind]} requests.`))
      }
      if (performance.now() > turnEndsAt) {
        await nextTurn()
        turnEndsAt = performance.now() + yieldAfterMs
      }
    }
    return groupOf('more')
  }

  /** False: somebody else has the batch. */
  async record({ found, errors, bytes, lines }: Group): Promise<boolean> {
    this.errors.push(...errors)
    const step = { bytes, lines, errors: this.errors, found, leaseMs }
    const twice = await recordScan(this.parts.db, this.batch, step, duplicate)
    if (twice === null) return false
    this.errors.push(...twice)
    this.total += found.length - twice.length
    return true
  }

  /** Starts the batch, or ends it for its faults. */
  async finish({ next }: Group): Promise<Validated> {
    const { db } = this.parts
    const faults = typeof next === 'string' ? this.errors : [...this.errors, next]
    if (faults.length === 0 && this.total === 0) faults.push(fault('empty_file', 'The file holds no request.'))
    if (faults.length === 0) return (await startBatch(db, this.batch)) ? 'started' : 'lost'
    const errors = faults.toSorted((a, b) => (a.line ?? Infinity) - (b.line ?? Infinity)).slice(0, maxFaults)
    return (await dropScan(db, this.batch, { status: 'failed', errors })) ? 'failed' : 'lost'
  }
}

/** As a line they stand for nothing. */
const blanks = new Set([0x20, 0x09, 0x0b, 0x0c, 0x0d])

/** Of the file as a whole. */
function fault(code: string, message: string): BatchFault {
  return { code, message, param: null, line: null }
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
async function readLine(
  bytes: Buffer,
  number: number,
  intake: Intake,
  lineKind: LineKind,
): Promise<{ line: ScannedLine } | { fault: LineFault } | null> {
  const { kind } = lineKind
  if (!isUtf8(bytes)) {
    return { fault: { code: 'invalid_json_line', message: 'The line is not UTF-8.', param: null } }
  }
  if (bytes.every((byte) => blanks.has(byte))) return null
  const checked = await intake.line({ kind: lineKind, body: bytes })
  if (checked.ok) {
    const { fingerprint, model, lane, request, id: jobId, reserveUsd, reserveTokens } = checked.job
    const { customId } = checked
    const row = { line: number, customId, fingerprint, model, lane, request, jobId, reserveUsd, reserveTokens }
    return { line: { ...row, refusal: null } }
  }
  // Anthropic's API takes the batch and answers such a request with its error.
  if (kind !== 'anthropic' || checked.customId === null) return { fault: checked.fault }
  const { code, message } = checked.fault
  const none = Buffer.alloc(0)
  const { customId } = checked
  const refusal = JSON.stringify({ code, message })
  return {
    line: {
      line: number,
      customId,
      fingerprint: none,
      model: '',
      lane: '',
      request: none,
      jobId: uuidv7(),
      reserveUsd: null,
      reserveTokens: null,
      refusal,
    },
  }
}
