import type { LaneConfig } from '@askonce/config'
import { routeModel } from '@askonce/core'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Parts } from '../context.ts'
import { Problem } from '../problem.ts'
import { sendJson, type ApiRoute } from '../route.ts'
import { noQuery } from '../schemas/queries.ts'
import { askUnkeyed, laneOfKind } from './unkeyed.ts'

/** A day that says nothing: the price list knows no dates. */
const created = 0

interface Model {
  id: string
  owner: string
}

/** Models by name: those that the configuration names, and those that the price list knows of the providers that are on. */
async function modelsOf(lanes: readonly LaneConfig[]): Promise<Model[]> {
  // Loaded when it is first needed: the list costs a start of the server a tenth of a second.
  const { knownModels } = await import('@askonce/providers')
  const names = new Map<string, string>()
  for (const { name, kind, baseUrl, models } of lanes) {
    for (const id of [...models.filter((pattern) => !pattern.includes('*')), ...knownModels(kind, baseUrl)]) {
      const route = routeModel(id, lanes)
      if (route.ok && route.lane === name) names.set(id, name)
    }
  }
  return [...names].map(([id, owner]) => ({ id, owner })).toSorted((a, b) => (a.id < b.id ? -1 : 1))
}

function view({ id, owner }: Model): object {
  return { id, object: 'model', created, owned_by: owner }
}

/** The provider's own list. Where none is on that has one, what the configuration and the price list name. */
async function list(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const lane = laneOfKind(parts, 'openai')
  if (lane !== null) return askUnkeyed(parts, request, reply, lane, { method: 'GET', path: '/models', body: null })
  const models = await modelsOf(parts.config.lanes)
  return sendJson(reply, 200, { object: 'list', data: models.map(view) })
}

/** Model names may hold slashes, so this is everything behind `/models/`. */
async function retrieve(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { id, lane } = modelInPath(parts, request)
  if (lane.kind !== 'openai') return sendJson(reply, 200, view({ id, owner: lane.name }))
  return askUnkeyed(parts, request, reply, lane, { method: 'GET', path: `/models/${pathOf(id)}`, body: null })
}

function modelInPath(parts: Parts, request: FastifyRequest): { id: string; lane: LaneConfig } {
  const id = (request.params as { '*': string })['*']
  const route = routeModel(id, parts.config.lanes)
  const lane = route.ok ? parts.config.lanes.find(({ name }) => name === route.lane) : undefined
  if (lane === undefined || id === '') {
    throw new Problem('not_found', route.ok ? 'Name a model.' : route.detail, { param: 'model' })
  }
  return { id, lane }
}

/** Encoded again, slashes left as they are; a path that climbs is no model. */
function pathOf(id: string): string {
  const segments = id.split('/')
  if (segments.some((segment) => segment === '' || segment === '.' || segment === '..')) {
    throw new Problem('not_found', 'There is no model of this name.', { param: 'model' })
  }
  return segments.map(encodeURIComponent).join('/')
}

function anthropicLane(parts: Parts): LaneConfig {
  const lane = laneOfKind(parts, 'anthropic')
  if (lane !== null) return lane
  throw new Problem(
    'not_found',
    'No provider is on for Anthropic’s models. Set ANTHROPIC_API_KEY or ANTHROPIC_BASE_URL on the API and the workers.',
  )
}

async function listAnthropic(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const query = new URLSearchParams(request.query as Record<string, string>).toString()
  const path = `/v1/models${query === '' ? '' : `?${query}`}`
  return askUnkeyed(parts, request, reply, anthropicLane(parts), { method: 'GET', path, body: null })
}

async function retrieveAnthropic(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const id = (request.params as { '*': string })['*']
  const path = `/v1/models/${pathOf(id)}`
  return askUnkeyed(parts, request, reply, anthropicLane(parts), { method: 'GET', path, body: null })
}

const short = z.string({ error: 'must be given once' }).max(200, 'must have at most 200 characters').optional()
const anthropicPage = z.strictObject({ after_id: short, before_id: short, limit: short })

const shared = { method: 'GET', scope: 'read', accepts: [] } as const
const description = 'Passed on to the provider, and its answer back as it is. It needs no key, and is in no ledger.'

export const modelRoutes: ApiRoute[] = [
  {
    ...shared,
    path: '/openai/v1/models',
    tag: 'OpenAI SDK',
    summary: 'List models',
    description: `${description} While only the simulated provider is on: the models that it answers.`,
    query: noQuery,
    answers: { 200: { description: 'The provider’s models' } },
    errors: ['upstream_failed', 'overloaded'],
    handle: list,
  },
  {
    ...shared,
    path: '/openai/v1/models/{model}',
    tag: 'OpenAI SDK',
    summary: 'Retrieve a model',
    description: `${description} A model of another kind of provider is described here, without asking it.`,
    query: noQuery,
    answers: { 200: { description: 'The model' } },
    errors: ['not_found', 'upstream_failed', 'overloaded'],
    handle: retrieve,
  },
  {
    ...shared,
    path: '/anthropic/v1/models',
    tag: 'Anthropic SDK',
    summary: 'List Anthropic’s models',
    description,
    query: anthropicPage,
    answers: { 200: { description: 'A page of the provider’s models' } },
    errors: ['not_found', 'upstream_failed', 'overloaded'],
    handle: listAnthropic,
  },
  {
    ...shared,
    path: '/anthropic/v1/models/{model}',
    tag: 'Anthropic SDK',
    summary: 'Retrieve one of Anthropic’s models',
    description,
    query: noQuery,
    answers: { 200: { description: 'The model' } },
    errors: ['not_found', 'upstream_failed', 'overloaded'],
    handle: retrieveAnthropic,
  },
]
