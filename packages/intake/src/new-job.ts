import type { Config, LaneConfig } from '@askonce/config'
import {
  boundsOf,
  canonicalize,
  fingerprint,
  operations,
  routeModel,
  speaks,
  toPointer,
  type CallBounds,
  type Json,
  type JsonObject,
  type Operation,
  type RequestHeaders,
} from '@askonce/core'
import type { NewJob, TenantDefaults } from '@askonce/store'
import { uuidv7 } from 'uuidv7'
import { IntakeError } from './error.ts'
import { checkBody } from './issues.ts'
import { refuseOurIds } from './our-ids.ts'
import { nativeRequests, providerRequests } from './provider-request.ts'
import { submissionSchema, yearSeconds, type DeliveryOptions } from './submission.ts'

const defaultPriority = 5

/** What a job is made by. Plain data: threads get it, and it holds no key of a provider. */
export interface IntakeSettings {
  limits: Config['limits']
  lanes: readonly Omit<Config['lanes'][number], 'apiKey'>[]
}

/** A submission: what is sent, by whom, under which key. */
export interface SubmissionInput {
  tenantId: string
  /** What holds for this tenant where the submission says nothing. */
  defaults: TenantDefaults
  key: string
  /** The parsed envelope. */
  body: Json
  /** The text of a part of it exactly as it was sent. */
  textOf: (part: object) => string
}

/** A provider's own body that somebody asks us to send, with what is ours beside it. */
export interface AskedRequest {
  tenantId: string
  /** What holds for this tenant where the submission says nothing. */
  defaults: TenantDefaults
  /** Or how to make it from the fingerprint. */
  key: string | ((fingerprint: Buffer) => string)
  operation: Operation
  request: JsonObject
  /** The exact text of `request`. */
  text: string
  /** Where `request` is in the body: for the pointers of errors. */
  base: readonly string[]
  /** Of the caller, for the provider; null: none. */
  headers: RequestHeaders | null
  options: DeliveryOptions
}

/** What becomes a row. */
export interface PreparedJob {
  job: NewJob
  /** What its call can use at most, as far as the request says it. */
  bounds: CallBounds
}

/** Makes rows of what is asked for. */
export interface JobFactory {
  /** From a submission of the native surface. */
  fromSubmission: (input: SubmissionInput) => PreparedJob
  /** From a provider's own body, whose `stream` member is the caller's business. */
  fromRequest: (asked: AskedRequest) => PreparedJob
}

/** Checks what is asked for and turns it into rows. Schemas are built once, here. */
export function createJobFactory({ limits, lanes }: IntakeSettings): JobFactory {
  const schema = submissionSchema(limits)

  const rowOf = (
    { tenantId, defaults, key, operation, request, text, base, headers, options }: AskedRequest,
    model: string,
  ): PreparedJob => {
    const bytes = Buffer.from(text)
    if (bytes.length > limits.maxRequestBytes) {
      const detail = `${toPointer(base) || 'The body'} has ${bytes.length} bytes; this server accepts ${limits.maxRequestBytes}.`
      throw new IntakeError('payload_too_large', detail, toPointer(base))
    }
    refuseOurIds(request, text, base)
    const route = routeModel(model, lanes)
    if (!route.ok) throw new IntakeError('invalid_request', route.detail, toPointer([...base, 'model']))
    refuseMarks(request, base)
    const kind = lanes.find(({ name }) => name === route.lane)?.kind
    if (kind !== undefined && !speaks(kind, operation)) {
      throw new IntakeError(
        'invalid_request',
        unspoken(model, route.lane, kind, operation),
        toPointer([...base, 'model']),
      )
    }
    const digest = fingerprint(operation, request, headers)
    return {
      job: {
        id: uuidv7(),
        tenantId,
        key: typeof key === 'string' ? key : key(digest),
        fingerprint: digest,
        bodyDigest: null,
        operation,
        model,
        lane: route.lane,
        request: bytes,
        requestHeaders: headers === null ? null : JSON.stringify(headers),
        streamed: request['stream'] === true,
        ownerBatch: null,
        ...deliveryOf(limits, defaults, options),
        // What the bounds are worth is known to whoever knows the prices.
        reserveUsd: null,
        reserveTokens: null,
      },
      bounds: boundsOf(operation, request, bytes.length),
    }
  }

  const fromRequest = (asked: AskedRequest): PreparedJob =>
    rowOf(asked, checkBody(providerRequests[asked.operation], asked.request, asked.base).model)

  const fromSubmission = ({ tenantId, defaults, key, body, textOf }: SubmissionInput): PreparedJob => {
    const { operation, request: _copy, stream, ...options } = checkBody(schema, body)
    // The parsed original, not the validator's copy: its text is known, and nothing is lost in it.
    const request = (body as JsonObject).request as JsonObject
    const base = ['request']
    const { model } = checkBody(nativeRequests[operation], request, base)
    const asked = { tenantId, defaults, key, operation, base, options, headers: null }
    if (stream !== true) return rowOf({ ...asked, request, text: textOf(request) }, model)
    if (operation === 'embeddings') {
      throw new IntakeError('invalid_request', '/stream: embeddings have no stream', '/stream')
    }
    return rowOf({ ...asked, ...streaming(request, textOf(request)) }, model)
  }
  return { fromSubmission, fromRequest }
}

/** The names that mark attempts at a provider. Nothing that a caller may write stands for an attempt. */
const ourNames = /^askonce_/i

function refuseMarks({ metadata }: JsonObject, base: readonly string[]): void {
  if (typeof metadata !== 'object' || metadata === null) return
  const name = Object.keys(metadata).find((member) => ourNames.test(member))
  if (name === undefined) return
  const pointer = toPointer([...base, 'metadata', name])
  throw new IntakeError('invalid_request', `${pointer}: names that begin with askonce_ are for Askonce alone`, pointer)
}

/** Why this lane cannot be asked so; it names what can. */
function unspoken(model: string, lane: string, kind: LaneConfig['kind'], operation: Operation): string {
  const others = operations.filter((other) => speaks(kind, other)).join(', ')
  return `/model: ${JSON.stringify(model)} goes to the lane ${lane}, whose provider (${kind}) has no ${operation}, only ${others}. Ask it that way, or name another model.`
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

/** The columns that delivery options decide. Where a submission says nothing its tenant's defaults hold, then the server's. */
export function deliveryOf(limits: Config['limits'], tenant: TenantDefaults, options: DeliveryOptions): Delivery {
  return {
    metadata: options.metadata === undefined ? null : JSON.stringify(options.metadata),
    priority: options.priority ?? defaultPriority,
    timeoutMs: seconds(options.timeout_seconds ?? tenant.timeoutSeconds) ?? limits.defaultTimeoutMs,
    ttlSeconds: options.ttl_seconds ?? defaultTtl(limits, tenant),
    deadlineSeconds: options.deadline_seconds ?? wholeSeconds(limits.defaultDeadlineMs),
    onUncertain: options.on_uncertain ?? tenant.onUncertain ?? limits.defaultOnUncertain,
    maxAttempts: options.max_attempts ?? tenant.maxAttempts ?? limits.defaultMaxAttempts,
    maxPaidAttempts: options.max_paid_attempts ?? tenant.maxPaidAttempts ?? limits.defaultMaxPaidAttempts,
    ...whenToRun(options),
  }
}

/** How long an answer of this tenant is kept unless its submission says; never longer than the server lets anybody ask for. */
export function defaultTtl(limits: Config['limits'], { ttlSeconds }: TenantDefaults): number {
  return ttlSeconds === null ? wholeSeconds(limits.defaultTtlMs) : Math.min(ttlSeconds, wholeSeconds(limits.maxTtlMs))
}

/** A limit as the columns hold it: 1 at least. */
export function wholeSeconds(ms: number): number {
  return Math.max(1, Math.floor(ms / 1000))
}

function seconds(value: number | null | undefined): number | undefined {
  return value === undefined || value === null ? undefined : value * 1000
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
