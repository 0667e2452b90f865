import type { Config } from '@askonce/config'
import { fingerprint, routeModel, type Json, type JsonObject, type Operation } from '@askonce/core'
import type { NewJob } from '@askonce/store'
import { uuidv7 } from 'uuidv7'
import { IntakeError } from './error.ts'
import { bodyFault } from './issues.ts'
import { providerRequests } from './provider-request.ts'
import { submissionSchema, yearSeconds, type SubmissionBody } from './submission.ts'

const defaultPriority = 5
const defaultMaxAttempts = 5
const defaultMaxPaidAttempts = 2

interface NewJobOptions {
  config: Config
  /** Whether new jobs of this lane go to BullMQ at once. */
  isOpen: (lane: string) => boolean
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

/** What becomes a row, and the request as it was parsed, for telling differences. */
export interface PreparedJob {
  job: NewJob
  operation: Operation
  request: JsonObject
}

/** Returns a function that checks submissions and turns them into rows; it throws {@link IntakeError}. Schemas are built once, here. */
export function createJobFactory({ config, isOpen }: NewJobOptions): (input: SubmissionInput) => PreparedJob {
  const { limits, lanes } = config
  const schema = submissionSchema(limits)

  return ({ tenantId, key, body, textOf }) => {
    const checked = schema.safeParse(body, { reportInput: true })
    if (!checked.success) throw bodyFault(checked.error)
    const envelope = checked.data
    // The parsed original, not the validator's copy: its text is known, and nothing is lost in it.
    const request = (body as JsonObject).request as JsonObject
    const model = checkRequest(envelope.operation, request)
    const bytes = Buffer.from(textOf(request))
    if (bytes.length > limits.maxRequestBytes) {
      const detail = `/request has ${bytes.length} bytes; this server accepts ${limits.maxRequestBytes}.`
      throw new IntakeError('payload_too_large', detail, '/request')
    }
    const route = routeModel(model, lanes)
    if (!route.ok) throw new IntakeError('invalid_request', route.detail, '/request/model')
    return {
      operation: envelope.operation,
      request,
      job: {
        id: uuidv7(),
        tenantId,
        key,
        fingerprint: fingerprint(envelope.operation, request),
        operation: envelope.operation,
        model,
        lane: route.lane,
        request: bytes,
        streamed: false,
        ownerBatch: null,
        metadata: envelope.metadata === undefined ? null : JSON.stringify(envelope.metadata),
        priority: envelope.priority ?? defaultPriority,
        timeoutMs: seconds(envelope.timeout_seconds) ?? limits.defaultTimeoutMs,
        ttlSeconds: envelope.ttl_seconds ?? Math.max(1, Math.floor(limits.defaultTtlMs / 1000)),
        deadlineSeconds: envelope.deadline_seconds ?? Math.max(1, Math.floor(limits.defaultDeadlineMs / 1000)),
        onUncertain: envelope.on_uncertain ?? 'rerun',
        maxAttempts: envelope.max_attempts ?? defaultMaxAttempts,
        maxPaidAttempts: envelope.max_paid_attempts ?? defaultMaxPaidAttempts,
        ...whenToRun(envelope),
        dispatch: isOpen(route.lane),
      },
    }
  }
}

function seconds(value: number | undefined): number | undefined {
  return value === undefined ? undefined : value * 1000
}

/** @returns the model */
function checkRequest(operation: Operation, request: JsonObject): string {
  const checked = providerRequests[operation].safeParse(request, { reportInput: true })
  if (!checked.success) throw bodyFault(checked.error, ['request'])
  return checked.data.model
}

/** Whether the time has come is decided by the database: this machine's clock may be wrong. */
function whenToRun({
  run_at: runAt,
  delay_seconds: delaySeconds,
}: SubmissionBody): Pick<NewJob, 'runAt' | 'delaySeconds'> {
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
