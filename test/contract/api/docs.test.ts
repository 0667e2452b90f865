import { readFileSync } from 'node:fs'
import { errorRegistry } from '@askonce/core'
import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { chat, startHarness, type Harness } from './harness.ts'

interface Schema {
  $ref?: string
  anyOf?: Schema[]
  const?: unknown
  enum?: unknown[]
  type?: string | string[]
  items?: Schema
  properties?: Record<string, Schema>
  required?: string[]
  additionalProperties?: unknown
  examples?: unknown[]
}

interface Content {
  schema: Schema
  example: object
}

interface Parameter {
  name: string
  in: string
  schema: object
}

interface Operation {
  summary: string
  security: unknown
  operationId: string
  requestBody: { content: Record<string, Content> }
  responses: Record<string, { content: Record<string, Content> }>
}

interface OpenApi {
  openapi: string
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Schema> }
}

let harness: Harness
let openapi: OpenApi

beforeAll(async () => {
  harness = await startHarness()
  openapi = (await harness.call('GET', '/openapi.json', { key: null })).json as unknown as OpenApi
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

/** Every call of the surface. */
const calls = [
  'POST /v1/jobs',
  'POST /v1/jobs/bulk',
  'GET /v1/jobs/{id}',
  'GET /v1/jobs',
  'GET /v1/jobs/{id}/response',
  'GET /v1/jobs/{id}/attempts',
  'GET /v1/jobs/{id}/decisions',
  'POST /v1/jobs/{id}/cancel',
  'POST /v1/jobs/{id}/retry',
  'POST /v1/jobs/{id}/fail',
  'POST /v1/jobs/bulk/retry',
  'POST /v1/jobs/bulk/fail',
  'POST /v1/jobs/bulk/cancel',
  'POST /v1/jobs/bulk/delete',
  'GET /v1/spend',
  'GET /v1/attempts',
  'POST /v1/attempts/erase',
  'GET /v1/lanes',
  'POST /v1/lanes/{name}/resume',
  'GET /v1/tenants',
  'POST /v1/tenants',
  'GET /v1/tenants/{id}',
  'PATCH /v1/tenants/{id}',
  'DELETE /v1/jobs/{id}',
  'GET /v1/jobs/{id}/events',
  'POST /openai/v1/chat/completions',
  'GET /openai/v1/chat/completions',
  'GET /openai/v1/chat/completions/{id}',
  'POST /openai/v1/responses',
  'GET /openai/v1/responses/{id}',
  'DELETE /openai/v1/responses/{id}',
  'POST /openai/v1/responses/{id}/cancel',
  'POST /openai/v1/embeddings',
  'GET /openai/v1/models',
  'GET /openai/v1/models/{model}',
  'POST /openai/v1/files',
  'GET /openai/v1/files',
  'GET /openai/v1/files/{id}',
  'GET /openai/v1/files/{id}/content',
  'DELETE /openai/v1/files/{id}',
  'POST /openai/v1/batches',
  'GET /openai/v1/batches',
  'GET /openai/v1/batches/{id}',
  'GET /openai/v1/batches/{id}/lines',
  'POST /openai/v1/batches/{id}/cancel',
  'POST /anthropic/v1/messages',
  'POST /anthropic/v1/messages/batches',
  'GET /anthropic/v1/messages/batches',
  'GET /anthropic/v1/models',
  'GET /anthropic/v1/models/{model}',
  'POST /anthropic/v1/messages/count_tokens',
  'GET /anthropic/v1/messages/batches/{id}',
  'POST /anthropic/v1/messages/batches/{id}/cancel',
  'DELETE /anthropic/v1/messages/batches/{id}',
  'GET /anthropic/v1/messages/batches/{id}/results',
  'GET /',
  'GET /healthz',
  'GET /readyz',
  'GET /metrics',
  'GET /openapi.json',
]

function operationOf(call: string): Operation {
  const [method = '', path = ''] = call.split(' ')
  const found = openapi.paths[path]?.[method.toLowerCase()]
  if (found === undefined) throw new Error(`${call} is not described`)
  return found
}

function schemaOf(name: string): Schema {
  const found = openapi.components.schemas[name]
  if (found === undefined) throw new Error(`there is no schema ${name}`)
  return found
}

/** The values of every member of this name, anywhere inside. */
function* membersNamed(name: string, value: unknown): Generator {
  if (typeof value !== 'object' || value === null) return
  for (const [key, part] of Object.entries(value)) {
    if (key === name) yield part
    yield* membersNamed(name, part)
  }
}

describe('/openapi.json', () => {
  it('is OpenAPI 3.1 and describes every call, with its errors', () => {
    expect(openapi.openapi).toBe('3.1.0')
    const described = Object.entries(openapi.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    )
    expect(described.toSorted()).toEqual(calls.toSorted())
    for (const call of calls.filter((name) => name.includes('/v1/'))) {
      const { responses, security, summary } = operationOf(call)
      expect([call, Object.keys(responses)]).toEqual([
        call,
        expect.arrayContaining(['400', '401', '403', '500', '503']),
      ])
      expect([call, security, summary.length > 5]).toEqual([call, [{ key: [] }], true])
    }
    expect(Object.keys(operationOf('POST /v1/jobs').responses)).toEqual(
      expect.arrayContaining(['200', '202', '400', '413', '415', '422', '503']),
    )
  })

  it('has no dead reference, no repeated operation id, and no code that the registry lacks', () => {
    const references = [...membersNamed('$ref', openapi)] as string[]
    expect(references.length).toBeGreaterThan(50)
    const dead = references.filter(
      (ref) => openapi.components.schemas[ref.replace('#/components/schemas/', '')] === undefined,
    )
    expect(dead).toEqual([])
    const ids = [...membersNamed('operationId', openapi)]
    expect(new Set(ids).size).toBe(ids.length)
    const unreadable = ids.filter(
      (id) => !/^(?:[a-z]+)(?:[A-Z][a-z]+)+$/.test(String(id)) || /Id\b|V1|Bulk/.test(String(id)),
    )
    expect(unreadable).toEqual([])
    const codes = JSON.stringify(openapi.paths).match(/(?<=`)[a-z]+_[a-z_]+(?=`:)/g) ?? []
    expect(codes.filter((code) => !(code in errorRegistry))).toEqual([])
    expect([...membersNamed('$id', openapi), ...membersNamed('$schema', openapi)]).toEqual([])
  })

  it.each([
    ['POST /v1/jobs', 'createJob'],
    ['GET /v1/jobs', 'listJobs'],
    ['GET /v1/jobs/{id}', 'getJob'],
    ['GET /v1/jobs/{id}/response', 'getJobResponse'],
    ['POST /v1/jobs/bulk', 'createJobs'],
    ['POST /v1/jobs/bulk/retry', 'retryJobs'],
    ['POST /v1/jobs/{id}/retry', 'retryJob'],
    ['POST /v1/lanes/{name}/resume', 'resumeLane'],
    ['POST /openai/v1/chat/completions', 'createChatCompletion'],
    ['GET /openai/v1/batches', 'listBatches'],
    ['GET /anthropic/v1/messages/batches/{id}', 'getMessageBatch'],
  ])('calls %s %s', (call, id) => {
    expect(operationOf(call).operationId).toBe(id)
  })

  it.each([
    ['POST /v1/jobs/bulk/delete', ['ids', 'filter', 'cursor', 'reason', 'accept_duplicate_charge', 'dry_run']],
    ['POST /v1/attempts/erase', ['ids', 'filter']],
    ['POST /v1/lanes/{name}/resume', ['model']],
    ['POST /anthropic/v1/messages/count_tokens', ['model']],
  ])('describes the body of %s as its own', (call, members) => {
    const { schema } = operationOf(call).requestBody.content['application/json'] as unknown as { schema: Schema }
    const name = schema.$ref?.split('/').at(-1) ?? ''
    expect(Object.keys(schemaOf(name).properties ?? {})).toEqual(members)
  })

  it('says of every number in a query that it is one', () => {
    const parameters = Object.values(openapi.paths)
      .flatMap((methods) => Object.values(methods))
      .flatMap((operation) => (operation as unknown as { parameters: Parameter[] }).parameters)
    const numbers = parameters.filter(
      ({ in: where, name }) => where === 'query' && ['limit', 'wait', 'starting_after'].includes(name),
    )
    expect(numbers.length).toBeGreaterThan(6)
    for (const { schema } of numbers) {
      expect(schema).toMatchObject({ type: 'integer' })
      expect(schema).not.toHaveProperty('pattern')
    }
  })

  it('shows the limits of this server', () => {
    const { properties = {}, required, additionalProperties } = schemaOf('Submission')
    expect(properties['ttl_seconds']).toMatchObject({ type: 'integer', minimum: 1, maximum: 31_536_000 })
    expect(required).toEqual(['operation', 'request'])
    expect(additionalProperties).toBe(false)
    expect(properties['request']?.anyOf).toHaveLength(4)
  })

  it('has an example that can be sent', async () => {
    const { example = {} } = operationOf('POST /v1/jobs').requestBody.content['application/json'] ?? {}
    expect((await harness.submit('example', example)).status).toBe(202)
    const bulk = operationOf('POST /v1/jobs/bulk').requestBody.content['application/json']?.example ?? {}
    const { json } = await harness.call('POST', '/v1/jobs/bulk', { body: bulk })
    expect(json.data.map((item) => item.status)).toEqual([202, 202])
  })
})

/** A small check of a value against a schema of the document: types, required and unknown members, enumerations. */
function faults(schema: Schema, value: unknown, at = ''): string[] {
  if (schema.$ref !== undefined) return faults(schemaOf(schema.$ref.split('/').at(-1) ?? ''), value, at)
  if (schema.anyOf !== undefined) {
    const tried = schema.anyOf.map((option) => faults(option, value, at))
    return tried.some((found) => found.length === 0) ? [] : (tried[0] ?? [])
  }
  if (schema.const !== undefined) return schema.const === value ? [] : [`${at}: not ${JSON.stringify(schema.const)}`]
  if (schema.enum !== undefined) return schema.enum.includes(value) ? [] : [`${at}: not in the list`]
  const actual = value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value
  const types = [schema.type ?? actual].flat().map((type) => (type === 'integer' ? 'number' : type))
  if (!types.includes(actual)) return [`${at}: ${actual}, not ${types.join(' or ')}`]
  if (Array.isArray(value)) return value.flatMap((item, index) => faults(schema.items ?? {}, item, `${at}/${index}`))
  if (actual !== 'object' || schema.properties === undefined) return []
  const members = value as Record<string, unknown>
  const missing = (schema.required ?? []).filter((name) => !(name in members))
  const { properties } = schema
  const unknown = Object.keys(members).filter((name) => !(name in properties))
  return [
    ...missing.map((name) => `${at}/${name}: missing`),
    ...unknown.map((name) => `${at}/${name}: not described`),
    ...Object.entries(members).flatMap(([name, part]) => faults(properties[name] ?? {}, part, `${at}/${name}`)),
  ]
}

describe('answers', () => {
  it('are what the document says', async () => {
    const { json: job } = await harness.submit('described', chat('described'))
    const claim = await harness.claim(job.id)
    await harness.end(claim, { action: 'stop', outcome: 'rejected' })
    await harness.call('POST', `/v1/jobs/${job.id}/retry`, { body: { reason: 'again' } })
    await harness.end(await harness.claim(job.id), { action: 'stop', outcome: 'rejected' })
    await harness.sql(`insert into lanes (name, state, reason) values ('other', 'stopped', 'x')`)
    const asked: [string, string, string, number, object?][] = [
      ['GET', `/v1/jobs/${job.id}`, '/v1/jobs/{id}', 200],
      ['GET', '/v1/jobs', '/v1/jobs', 200],
      ['GET', `/v1/jobs/${job.id}/attempts`, '/v1/jobs/{id}/attempts', 200],
      ['GET', `/v1/jobs/${job.id}/decisions`, '/v1/jobs/{id}/decisions', 200],
      ['GET', '/v1/attempts?key=described', '/v1/attempts', 200],
      ['GET', '/v1/spend', '/v1/spend', 200],
      ['GET', '/v1/spend?group_by=model', '/v1/spend', 200],
      ['GET', `/v1/jobs/${job.id}/response`, '/v1/jobs/{id}/response', 404],
      ['POST', `/v1/jobs/${job.id}/cancel`, '/v1/jobs/{id}/cancel', 409],
      ['POST', '/v1/jobs/bulk', '/v1/jobs/bulk', 200, { jobs: [{ key: 'd', ...chat() }, 5] }],
      ['POST', '/v1/jobs/bulk/retry', '/v1/jobs/bulk/retry', 200, { ids: [job.id, 'x'] }],
      ['POST', '/v1/jobs/bulk/delete', '/v1/jobs/bulk/delete', 200, { ids: [job.id, 'x'], dry_run: true }],
      ['POST', '/v1/attempts/erase', '/v1/attempts/erase', 200, { ids: [job.id] }],
      ['POST', '/v1/jobs', '/v1/jobs', 400, {}],
      ['GET', '/v1/lanes', '/v1/lanes', 200],
      ['GET', '/readyz', '/readyz', 200],
      ['GET', '/healthz', '/healthz', 200],
    ]
    for (const [method, path, pattern, status, body] of asked) {
      const reply = await harness.call(method, path, body === undefined ? {} : { body })
      const { content = {} } = operationOf(`${method} ${pattern}`).responses[status] ?? {}
      const schema = Object.values(content)[0]?.schema ?? {}
      expect([method, path, reply.status, faults(schema, reply.json)]).toEqual([method, path, status, []])
    }
    const submitted = await harness.submit('described', chat('other'))
    expect(faults({ $ref: '#/components/schemas/Problem' }, submitted.json)).toEqual([])
    for (const name of ['Job', 'Problem']) {
      expect([name, schemaOf(name).examples?.map((example) => faults(schemaOf(name), example))]).toEqual([name, [[]]])
    }
    expect(faults({ $ref: '#/components/schemas/Job' }, { ...job, extra: 1 })).toEqual(['/extra: not described'])
  })
})

describe('the page', () => {
  it('loads everything from this server, under a policy that allows nothing else', async () => {
    const page = await harness.call('GET', '/docs', { key: null })
    expect(page.status).toBe(200)
    expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'; script-src 'self';/)
    const files = [...page.text.matchAll(/(?:href|src)="([^"]+)"/g)].map(([, file = '']) => file)
    expect(files.length).toBeGreaterThan(5)
    for (const link of [...files, '/docs/json']) {
      const file = new URL(link, `${harness.api.address}/docs`).href.replace(harness.api.address, '')
      expect(file).toMatch(/^\/docs\//)
      expect([file, (await harness.call('GET', file, { key: null })).status]).toEqual([file, 200])
    }
  })
})

describe('/metrics', () => {
  it('shows what the database knows, and requests by route', async () => {
    const { text, headers } = await harness.call('GET', '/metrics', { key: null })
    expect(headers.get('content-type')).toContain('text/plain')
    expect(text).toMatch(/askonce_jobs\{state="queued"\} \d/)
    expect(text).toContain('askonce_database_up 1')
    expect(text).toMatch(/askonce_http_requests_total\{route="POST \/v1\/jobs",status="202"\} \d/)
    expect(text).toMatch(/askonce_group_rows_count\{group="submit"\} [1-9]/)
    expect(text).not.toMatch(/[0-9a-f]{8}-[0-9a-f]{4}-7/)
  })
})

describe('the log', () => {
  it('holds no key, prompt or answer at any level', async () => {
    await harness.submit('log', chat('a very secret prompt'))
    const text = JSON.stringify(harness.lines)
    expect(text).toContain('submission.settled')
    expect(text).not.toMatch(/secret prompt|contract-test-key/)
  })
})

describe('docs/errors.md', () => {
  it('gives each code the status and the retryability of the registry', () => {
    const page = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8')
    const rows = [...page.matchAll(/^\| `(\w+)` \| (\d+|-) \| (yes|no) \|/gm)].map(([, code, status, retryable]) => [
      code,
      status === '-' ? null : Number(status),
      retryable === 'yes',
    ])
    const registry = Object.entries(errorRegistry).map(([code, { status, retryable }]) => [code, status, retryable])
    expect(rows).toEqual(registry)
  })
})
