import { embeddedJson } from '@askonce/intake'
import type { BatchRow, LineResult, LineWithJob } from '@askonce/store'

/** Why a line has no answer, where the provider has not said it. */
export interface LineError {
  code: string
  message: string
}

export const lineErrors = {
  expired: {
    code: 'batch_expired',
    message: 'This request could not be executed before the completion window expired.',
  },
  cancelled: { code: 'batch_cancelled', message: 'The batch was cancelled before this request was executed.' },
  jobCancelled: { code: 'job_cancelled', message: 'The job of this line was cancelled by somebody.' },
  forgotten: { code: 'forgotten', message: 'The job of this line was deleted before its result was written.' },
  reused: {
    code: 'idempotency_key_reused',
    message: 'The key of this line names another request. Use another idempotency_prefix, or another custom_id.',
  },
} as const satisfies Record<string, LineError>

type Line = Pick<LineWithJob, 'line' | 'custom_id' | 'job_id'>

const invalid = new Set(['invalid_request', 'idempotency_key_reused', 'provider_rejected'])

/** Line feeds are white space in JSON, and would end the line: in strings they are escaped. */
function onOneLine(bytes: Buffer): Buffer {
  if (!bytes.includes(0x0a) && !bytes.includes(0x0d)) return bytes
  return Buffer.from(bytes.map((byte) => (byte === 0x0a || byte === 0x0d ? 0x20 : byte)))
}

/** The bytes where they are JSON, else a JSON text of them. */
function asJson(bytes: Buffer): Buffer {
  const json = embeddedJson(bytes)
  try {
    JSON.parse(json.toString())
    return onOneLine(json)
  } catch {
    return Buffer.from(JSON.stringify(json.toString()))
  }
}

function requestIdOf(jobId: string): string {
  return `batch_req_${jobId.replaceAll('-', '')}`
}

const unpaid = { inputTokens: 0, outputTokens: 0, costUsd: 0 }

/** A line without an answer of the provider. */
export function withoutAnswer(
  kind: BatchRow['kind'],
  { line, custom_id: customId, job_id: jobId }: Line,
  outcome: Exclude<LineResult['outcome'], 'succeeded'>,
  error: LineError,
): LineResult {
  const text =
    kind === 'openai'
      ? JSON.stringify({ id: requestIdOf(jobId), custom_id: customId, response: null, error })
      : JSON.stringify({ custom_id: customId, result: anthropicFailure(outcome, error) })
  return { line, outcome, inErrors: kind === 'openai', text: Buffer.from(`${text}\n`), replayed: false, ...unpaid }
}

function anthropicFailure(outcome: LineResult['outcome'], { code, message }: LineError): object {
  if (outcome === 'cancelled') return { type: 'canceled' }
  if (outcome === 'expired') return { type: 'expired' }
  const type = invalid.has(code) ? 'invalid_request_error' : 'api_error'
  return { type: 'errored', error: { type: 'error', error: { type, message, code }, request_id: null } }
}

/** What stands in a line for an answer that is too large for one: a file is read by lines. */
function elsewhere(jobId: string, bytes: number): object {
  return { object: 'askonce.large_answer', bytes, url: `/v1/jobs/${jobId}/response` }
}

/** The result of a line whose job has ended. The provider's bytes stand in it as they came. */
export function resultOf(kind: BatchRow['kind'], row: LineWithJob): LineResult {
  const { line, custom_id: customId, job_id: jobId, job_state: state, started } = row
  const cost = started
    ? {
        inputTokens: row.input_tokens ?? 0,
        outputTokens: row.output_tokens ?? 0,
        costUsd: row.cost_usd ?? 0,
      }
    : unpaid
  const requestId = row.provider_request_id ?? jobId
  const response = (status: number, body: Buffer): Buffer => {
    const head = `{"id":"${requestIdOf(jobId)}","custom_id":${JSON.stringify(customId)},"response":{"status_code":${status},"request_id":${JSON.stringify(requestId)},"body":`
    return Buffer.concat([Buffer.from(head), body, Buffer.from('},"error":null}\n')])
  }
  const anthropic = (type: string, member: string, body: Buffer): Buffer => {
    const head = `{"custom_id":${JSON.stringify(customId)},"result":{"type":"${type}","${member}":`
    return Buffer.concat([Buffer.from(head), body, Buffer.from('}}\n')])
  }
  if (state === 'succeeded' && row.response !== null) {
    const body = asJson(row.response)
    const text =
      kind === 'openai' ? response(row.response_status ?? 200, body) : anthropic('succeeded', 'message', body)
    return { line, outcome: 'succeeded', inErrors: false, text, replayed: row.replayed, ...cost }
  }
  if (state === 'succeeded' && row.response_bytes !== null) {
    const body = Buffer.from(JSON.stringify(elsewhere(jobId, row.response_bytes)))
    const text =
      kind === 'openai' ? response(row.response_status ?? 200, body) : anthropic('succeeded', 'message', body)
    return { line, outcome: 'succeeded', inErrors: false, text, replayed: row.replayed, ...cost }
  }
  if (state === 'cancelled') {
    return Object.assign(withoutAnswer(kind, row, 'cancelled', lineErrors.jobCancelled), cost)
  }
  const status = row.error?.provider_status ?? null
  if (row.error_response !== null && status !== null) {
    const body = asJson(row.error_response)
    const text = kind === 'openai' ? response(status, body) : anthropic('errored', 'error', body)
    return { line, outcome: 'failed', inErrors: kind === 'openai', text, replayed: false, ...cost }
  }
  const { code, message } = row.error ?? { code: 'internal_error', message: 'The job has no answer.' }
  return Object.assign(withoutAnswer(kind, row, 'failed', { code, message }), cost)
}
