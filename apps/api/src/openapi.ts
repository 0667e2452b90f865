import { z } from 'zod'
import type { ProblemCode } from './problem.ts'
import { version } from '@askonce/config'
import { errorRegistry } from '@askonce/core'
import { providerRequests } from '@askonce/intake'
import { operationIdOf } from './operation-id.ts'
import type { ApiRoute } from './route.ts'
import * as changes from './schemas/changes.ts'
import { eraseBody } from './schemas/erase.ts'
import * as jobs from './schemas/job.ts'
import * as lanes from './schemas/lanes.ts'
import * as ledger from './schemas/ledger.ts'
import { problem } from './schemas/problem.ts'

type JsonSchema = Record<string, unknown>

/** Schemas that have a name of their own in the document. */
const named: Record<string, z.ZodType> = {
  Problem: problem,
  Job: jobs.job,
  JobError: jobs.jobError,
  JobList: jobs.jobList,
  Attempt: ledger.attempt,
  LedgerSummary: ledger.ledgerSummary,
  AttemptList: ledger.attemptList,
  KeyAttempt: ledger.keyAttempt,
  KeyAttemptList: ledger.keyAttemptList,
  Decision: ledger.decision,
  DecisionList: ledger.decisionList,
  SpendRow: ledger.spendRow,
  SpendSummary: ledger.spendSummary,
  SpendList: ledger.spendList,
  ItemError: jobs.itemError,
  SubmissionOutcome: jobs.submissionOutcome,
  SubmissionOutcomes: jobs.submissionOutcomes,
  ChangeOutcome: jobs.changeOutcome,
  ChangeOutcomes: jobs.changeOutcomes,
  DeletedJob: jobs.deletedJob,
  DecisionBody: changes.decisionBody,
  Retry: changes.retryBody,
  BulkChange: changes.bulkChangeBody,
  BulkRetry: changes.bulkRetryBody,
  BulkDelete: changes.bulkDeleteBody,
  EraseAttempts: eraseBody,
  Lane: lanes.lane,
  LaneList: lanes.laneList,
  ResumeLane: lanes.resumeRequest,
  Readiness: lanes.readiness,
  ChatCompletionsRequest: providerRequests['chat.completions'],
  MessagesRequest: providerRequests.messages,
  ResponsesRequest: providerRequests.responses,
  EmbeddingsRequest: providerRequests.embeddings,
}

const requestSchemas = ['ChatCompletionsRequest', 'ResponsesRequest', 'EmbeddingsRequest', 'MessagesRequest']

const ref = (name: string): JsonSchema => ({ $ref: `#/components/schemas/${name}` })

/** The OpenAPI 3.1 document of these routes, from the schemas that validate. `server`: where they are, absolute or as seen from the document. */
export function buildOpenApi(routes: readonly ApiRoute[], server: string) {
  const registry = z.registry<{ id: string }>()
  for (const [id, schema] of Object.entries(named)) registry.add(schema, { id })
  for (const route of routes) {
    // A form stands where it is used.
    const isForm = route.accepts.includes('multipart/form-data')
    if (route.body !== undefined && !isForm && !registry.has(route.body))
      registry.add(route.body, { id: bodyName(route) })
  }
  const names = new Map<z.ZodType, string>()
  for (const schema of [...Object.values(named), ...routes.map(({ body }) => body)]) {
    const id = schema === undefined ? undefined : registry.get(schema)?.id
    if (schema !== undefined && id !== undefined) names.set(schema, id)
  }
  const { schemas } = z.toJSONSchema(registry, {
    uri: (id) => `#/components/schemas/${id}`,
    io: 'input',
    unrepresentable: 'any',
    override: ({ jsonSchema }) => withoutNoise(jsonSchema as JsonSchema),
  })
  const paths: Record<string, JsonSchema> = {}
  for (const route of routes) {
    const methods = (paths[route.path] ??= {})
    methods[route.method.toLowerCase()] = operation(route, names)
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Askonce',
      version,
      description: 'Ask an LLM once per key; get the stored answer as often as you like.',
    },
    servers: [{ url: server }],
    tags: ['Jobs', 'Many jobs', 'OpenAI SDK', 'Anthropic SDK', 'Spend', 'Lanes', 'Tenants', 'Server'].map((name) => ({
      name,
    })),
    paths,
    components: {
      securitySchemes: { key: { type: 'http', scheme: 'bearer', description: 'An API key' } },
      schemas: Object.fromEntries(Object.entries(schemas).map(([id, schema]) => [id, tidy(id, schema as JsonSchema)])),
    },
  }
}

/** What every integer and every time has: a reader learns nothing from it, and the page makes strange examples of it. */
function withoutNoise(schema: JsonSchema): void {
  if (schema.minimum === Number.MIN_SAFE_INTEGER) delete schema.minimum
  if (schema.maximum === Number.MAX_SAFE_INTEGER) delete schema.maximum
  if (schema.format !== undefined) delete schema.pattern
}

const bodyNames: Readonly<Record<string, string>> = {
  '/v1/jobs': 'Submission',
  '/v1/jobs/bulk': 'BulkSubmission',
  '/v1/tenants': 'NewTenant',
  '/v1/tenants/{id}': 'TenantChange',
  '/openai/v1/batches': 'CreateBatch',
  '/anthropic/v1/messages/batches': 'CreateMessageBatch',
  '/anthropic/v1/messages/count_tokens': 'CountTokens',
}

/** Two bodies of one name would hide each other, so there is none by default. */
function bodyName({ method, path }: ApiRoute): string {
  const name = bodyNames[path]
  if (name === undefined) throw new Error(`${method} ${path}: what is its body called?`)
  return name
}

/** Ids and dialects that only a document of its own needs; and what a submission's `request` may be. */
function tidy(id: string, { $schema: _dialect, $id: _id, ...schema }: JsonSchema): JsonSchema {
  if (id === 'Submission') withRequests(schema)
  if (id === 'BulkSubmission') {
    const list = (schema as { properties: { jobs: { items: JsonSchema } } }).properties.jobs
    withRequests(list.items)
    Object.assign(list, { minItems: 1, maxItems: 10_000 })
  }
  return schema
}

function withRequests(schema: JsonSchema): void {
  const { properties } = schema as { properties: { request: JsonSchema } }
  properties.request = { description: properties.request.description, anyOf: requestSchemas.map(ref) }
}

function operation(route: ApiRoute, names: ReadonlyMap<z.ZodType, string>): JsonSchema {
  const { method, path, scope, tag, summary, description, body } = route
  return {
    operationId: operationIdOf(method, path),
    tags: [tag],
    summary,
    ...(description === undefined
      ? {}
      : { description: scope === null ? description : `${description}\n\nScope: \`${scope}\`.` }),
    ...(scope === null ? { security: [] } : { security: [{ key: [] }] }),
    parameters: [...pathParameters(path), ...queryParameters(route), ...headerParameters(route)],
    ...(body === undefined
      ? {}
      : {
          requestBody: {
            required: !optionalBody(path),
            content: contentOf(route, body, names),
          },
        }),
    responses: { ...answers(route, names), ...errors(route) },
  }
}

function contentOf({ accepts, example }: ApiRoute, body: z.ZodType, names: ReadonlyMap<z.ZodType, string>): JsonSchema {
  return Object.fromEntries(
    accepts.map((type) => [
      type,
      type === 'application/json'
        ? { schema: ref(names.get(body) ?? ''), ...(example === undefined ? {} : { example }) }
        : type === 'multipart/form-data'
          ? { schema: inline(body) }
          : { schema: { type: 'string', description: 'One item of `jobs` a line' } },
    ]),
  )
}

function optionalBody(path: string): boolean {
  return (path.startsWith('/v1/jobs/') && !path.includes('bulk')) || path.startsWith('/v1/lanes')
}

function pathParameters(path: string): JsonSchema[] {
  return [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }))
}

function queryParameters({ query }: ApiRoute): JsonSchema[] {
  const { properties = {} } = z.toJSONSchema(query, { io: 'input' }) as { properties?: Record<string, JsonSchema> }
  return Object.entries(properties).map(([name, { description, ...schema }]) => ({
    name,
    in: 'query',
    description,
    // Its text is checked by a pattern; what it stands for is a number.
    schema: schema.type === 'integer' ? { ...schema, pattern: undefined } : schema,
  }))
}

function headerParameters({ headers = {} }: ApiRoute): JsonSchema[] {
  return Object.entries(headers).map(([name, { required, description }]) => ({
    name,
    in: 'header',
    required,
    description,
    schema: { type: 'string' },
  }))
}

const requestId = { 'x-request-id': { description: 'Names this request in the log', schema: { type: 'string' } } }

function answers(route: ApiRoute, names: ReadonlyMap<z.ZodType, string>): JsonSchema {
  const entries = Object.entries(route.answers).map(
    ([status, { description, schema, contentType = 'application/json' }]) => {
      const name = schema === undefined ? undefined : names.get(schema)
      const shown = name !== undefined ? ref(name) : schema === undefined ? {} : inline(schema)
      return [status, { description, headers: requestId, content: { [contentType]: { schema: shown } } }]
    },
  )
  return Object.fromEntries(entries) as JsonSchema
}

function inline(schema: z.ZodType): JsonSchema {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema) as JsonSchema
  return rest
}

/** What a route can answer besides its own errors, by its kind. */
function errorCodes(route: ApiRoute): ProblemCode[] {
  const codes: ProblemCode[] = [...route.errors]
  if (route.scope !== null) codes.push('invalid_request', 'unauthorized', 'forbidden', 'unavailable', 'internal_error')
  if (route.accepts.length > 0) codes.push('invalid_request', 'payload_too_large', 'unsupported_media_type')
  return [...new Set(codes)]
}

function errors(route: ApiRoute): JsonSchema {
  const codes = errorCodes(route)
  const statuses = [...new Set(codes.map((code) => errorRegistry[code].status))].toSorted((a, b) => a - b)
  const entries = statuses.map((status) => {
    const own = codes.filter((code) => errorRegistry[code].status === status)
    const description = own.map((code) => `\`${code}\`: ${errorRegistry[code].title}`).join('. ')
    return [
      status,
      { description, headers: requestId, content: { 'application/problem+json': { schema: ref('Problem') } } },
    ]
  })
  return Object.fromEntries(entries) as JsonSchema
}
