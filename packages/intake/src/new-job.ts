import type { Config } from '@askonce/config'
import {
  canonicalize,
  fingerprint,
  routeModel,
  toPointer,
  type Json,
  type JsonObject,
  type Operation,
} from '@askonce/core'
import type { NewJob } from '@askonce/store'
import { uuidv7 } from 'uuidv7'
import { IntakeError } from './error.ts'
import { checkBody } from './issues.ts'
import { nativeRequests, providerRequests } from './provider-request.ts'
import { submissionSchema, yearSeconds, type DeliveryOptions } from './submission.ts'

const defaultPriority = 5
const defaultMaxAttempts = 5
const defaultMaxPaidAttempts = 2

interface NewJobOptions {
  config: Config
  /** Whether new jobs of this lane go to BullMQ at once. */
  isOpen: (lane: string, model: string) => boolean
}

/** A submission: what is sent, by whom, under which key. */
export interface SubmissionInput {
  tenantId: string
  key: string
  /** The parsed envelope. */
  body: Json
  /** The text of a part of it exactly as it was sent. */
  textOf: (part: object) => string
}

/** A provider's own body that somebody asks us to send, with what is ours beside it. */
export interface AskedRequest {
  tenantId: string
  /** Or how to make it from the fingerprint. */
  key: string | ((fingerprint: Buffer) => string)
  operation: Operation
  request: JsonObject
  /** The exact text of `request`. */
  text: string
  /** Where `request` is in the body: for the pointers of errors. */
  base: readonly string[]
  options: DeliveryOptions
}

/** What becomes a row, and the request as it was parsed, for telling differences. */
export interface PreparedJob {
  job: NewJob
  operation: Operation
  request: JsonObject
}

/** Makes rows of what is asked for. */
export interface JobFactory {
  /** From a submission of the native surface. */
  fromSubmission: (input: SubmissionInput) => PreparedJob
  /** From a provider's own body, whose `stream` member is the caller's business. */
  fromRequest: (asked: AskedRequest) => PreparedJob
}

/** Checks what is asked for and turns it into rows. Schemas are built once, here. */
export function createJobFactory({ config, isOpen }: NewJobOptions): JobFactory {
  const { limits, lanes } = config
  const schema = submissionSchema(limits)

  const rowOf = (
    { tenantId, key, operation, request, text, base, options }: AskedRequest,
    model: string,
  ): PreparedJob => {
    const bytes = Buffer.from(text)
    if (bytes.length > limits.maxRequestBytes) {
      const detail = `${toPointer(base) || 'The body'} has ${bytes.length} bytes; this server accepts ${limits.maxRequestBytes}.`
      throw new IntakeError('payload_too_large', detail, toPointer(base))
    }
    const route = routeModel(model, lanes)
    if (!route.ok) throw new IntakeError('invalid_request', route.detail, toPointer([...base, 'model']))
    const digest = fingerprint(operation, request)
    return {
      operation,
      request,
      job: {
        id: uuidv7(),
        tenantId,
        key: typeof key === 'string' ? key : key(digest),
        fingerprint: digest,
        operation,
        model,
        lane: route.lane,
        request: bytes,
        streamed: request['stream'] === true,
        ownerBatch: null,
        ...deliveryOf(limits, options),
        dispatch: isOpen(route.lane, model),
      },
    }
  }

  const fromRequest = (asked: AskedRequest): PreparedJob =>
    rowOf(asked, checkBody(providerRequests[asked.operation], asked.request, asked.base).model)

  const fromSubmission = ({ tenantId, key, body, textOf }: SubmissionInput): PreparedJob => {
    const { operation, request: _copy, stream, ...options } = checkBody(schema, body)
    // The parsed original, not the validator's copy: its text is known, and nothing is lost in it.
    const request = (body as JsonObject).request as JsonObject
    const base = ['request']
    const { model } = checkBody(nativeRequests[operation], request, base)
    const asked = { tenantId, key, operation, base, options }
    if (stream !== true) return rowOf({ ...asked, request, text: textOf(request) }, model)
    if (operation === 'embeddings') {
      throw new IntakeError('invalid_request', '/stream: embeddings have no stream', '/stream')
    }
    return rowOf({ ...asked, ...streaming(request, textOf(request)) }, model)
  }
  return { fromSubmission, fromRequest }
}

/** The request with `"stream": true`, all other characters as they were: what an SDK would have sent. */
function streaming(request: JsonObject, text: string): { request: JsonObject; text: string } {
  const { stream: _off, ...rest } = request
  const streamed = { ...rest, stream: true }
  // A member that says false or null cannot stay beside the other.
  if (request['stream'] !== undefined) return { request: streamed, text: canonicalize(streamed) }
  return { request: streamed, text: text.replace('{', '{"stream":true,') }
}

type Delivery = Pick<
  NewJob,
  | 'metadata'
  | 'priority'
  | 'timeoutMs'
  | 'ttlSeconds'
  | 'deadlineSeconds'
  | 'onUncertain'
  | 'maxAttempts'
  | 'maxPaidAttempts'
  | 'runAt'
  | 'delaySeconds'
>

/** The columns that delivery options decide, with what they are where a submission says nothing. */
export function deliveryOf(limits: Config['limits'], options: DeliveryOptions): Delivery {
  return {
    metadata: options.metadata === undefined ? null : JSON.stringify(options.metadata),
    priority: options.priority ?? defaultPriority,
    timeoutMs: seconds(options.timeout_seconds) ?? limits.defaultTimeoutMs,
    ttlSeconds: options.ttl_seconds ?? wholeSeconds(limits.defaultTtlMs),
    deadlineSeconds: options.deadline_seconds ?? wholeSeconds(limits.defaultDeadlineMs),
    onUncertain: options.on_uncertain ?? 'rerun',
    maxAttempts: options.max_attempts ?? defaultMaxAttempts,
    maxPaidAttempts: options.max_paid_attempts ?? defaultMaxPaidAttempts,
    ...whenToRun(options),
  }
}

/** A limit as the columns hold it: 1 at least. */
export function wholeSeconds(ms: number): number {
  return Math.max(1, Math.floor(ms / 1000))
}

function seconds(value: number | undefined): number | undefined {
  return value === undefined ? undefined : value * 1000
}

/** Whether the time has come is decided by the database: this machine's clock may be wrong. */
function whenToRun({
  run_at: runAt,
  delay_seconds: delaySeconds,
}: DeliveryOptions): Pick<NewJob, 'runAt' | 'delaySeconds'> {
  if (runAt === undefined) return { runAt: null, delaySeconds: delaySeconds ?? 0 }
  if (delaySeconds !== undefined) {
    throw new IntakeError('invalid_request', '/run_at: give either run_at or delay_seconds', '/run_at')
  }
  const time = Date.parse(runAt)
  if (time > Date.now() + yearSeconds * 1000) {
    throw new IntakeError('invalid_request', '/run_at: must be at most a year ahead', '/run_at')
  }
  return { runAt: new Date(time).toISOString(), delaySeconds: 0 }
}
