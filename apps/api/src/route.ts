import type { Config } from '@askonce/config'
import type { SubmissionLimits } from '@askonce/core'
import type { Scope, TenantDefaults } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Parts } from './context.ts'
import type { ProblemCode } from './problem.ts'

/** Who asks. */
export interface Caller {
  tenantId: string
  scopes: readonly Scope[]
  /** Whether its tenant wants keys that are derived from requests where an SDK names none. */
  deriveKeys: boolean
  /** What holds for its tenant's submissions that do not say otherwise. */
  defaults: TenantDefaults
  /** What its submissions have to be looked at for. */
  limits: SubmissionLimits
  /** The API key: a decision names it. */
  key: { id: string; name: string }
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set before the handler of a route with a scope runs. */
    caller: Caller
  }
}

/** An answer of a route: a JSON schema, or another content type. */
interface RouteAnswer {
  description: string
  schema?: z.ZodType
  contentType?: string
}

/** One call of the HTTP surface: what is served and what /openapi.json says of it come from here. */
export interface ApiRoute {
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  /** As OpenAPI writes it: `/v1/jobs/{id}`. */
  path: string
  /** Null: no key is asked for. */
  scope: Scope | null
  tag: 'Jobs' | 'Many jobs' | 'OpenAI SDK' | 'Anthropic SDK' | 'Spend' | 'Lanes' | 'Tenants' | 'Server'
  summary: string
  description?: string
  /** Parameters of the query; others are refused. */
  query: z.ZodObject
  /** Request headers besides the key, by name. */
  headers?: Readonly<Record<string, { required: boolean; description: string }>>
  /** Content types that the body may have; empty: there is no body. */
  accepts: readonly ('application/json' | 'application/x-ndjson' | 'multipart/form-data')[]
  /** The handler reads the body itself, as it comes, from the raw request: nobody holds it. */
  streamed?: boolean
  /** Of a streamed body, as far as its length says it. */
  maxBytes?: (limits: Config['limits']) => number
  body?: z.ZodType
  /** A body for those who try the call out on the page. */
  example?: unknown
  answers: Readonly<Record<number, RouteAnswer>>
  /** Error codes beyond those that every route of its kind has. */
  errors: readonly ProblemCode[]
  handle: (parts: Parts, request: FastifyRequest, reply: FastifyReply) => Promise<unknown>
}

/** The id in the path. */
export function idOf(request: FastifyRequest): string {
  return (request.params as { id: string }).id
}

const uuidv7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

/** Whether a text has the form of our job ids; anything else cannot be one. */
export function isJobId(text: string): boolean {
  return uuidv7.test(text)
}

/** Sends JSON that is ready. */
export function sendJson(reply: FastifyReply, status: number, json: string | Buffer | object): FastifyReply {
  return reply
    .code(status)
    .header('content-type', 'application/json; charset=utf-8')
    .send(typeof json === 'string' || Buffer.isBuffer(json) ? json : JSON.stringify(json))
}

/** All values of a header, one per line that was sent: Node joins them, and then one with a comma looks like two. */
export function headerValues(request: FastifyRequest, name: string): string[] {
  if (request.headers[name] === undefined) return []
  const { rawHeaders } = request.raw
  const values: string[] = []
  for (let index = 0; index < rawHeaders.length; index += 2) {
    if (rawHeaders[index]?.toLowerCase() === name) values.push(rawHeaders[index + 1] ?? '')
  }
  return values
}
