import type { LaneConfig } from '@askonce/config'
import { routeModel } from '@askonce/core'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Parts } from '../context.ts'
import { Problem } from '../problem.ts'
import { sendJson, type ApiRoute } from '../route.ts'
import { noQuery } from '../schemas/queries.ts'

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

async function list(parts: Parts, _request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const models = await modelsOf(parts.config.lanes)
  return sendJson(reply, 200, { object: 'list', data: models.map(view) })
}

/** Model names may hold slashes, so this is everything behind `/models/`. */
async function retrieve(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const id = (request.params as { '*': string })['*']
  const route = routeModel(id, parts.config.lanes)
  if (!route.ok || id === '')
    throw new Problem('not_found', route.ok ? 'Name a model.' : route.detail, { param: 'model' })
  return sendJson(reply, 200, view({ id, owner: route.lane }))
}

export const modelRoutes: ApiRoute[] = [
  {
    method: 'GET',
    path: '/openai/v1/models',
    scope: 'read',
    tag: 'OpenAI SDK',
    summary: 'List models',
    description:
      'Models that the configuration and the price list name. The provider is not asked; a model that is not listed is called all the same.',
    query: noQuery,
    accepts: [],
    answers: { 200: { description: 'Every model, by name' } },
    errors: [],
    handle: list,
  },
  {
    method: 'GET',
    path: '/openai/v1/models/{model}',
    scope: 'read',
    tag: 'OpenAI SDK',
    summary: 'Retrieve a model',
    description: 'Any name that a provider which is on would be called with.',
    query: noQuery,
    accepts: [],
    answers: { 200: { description: 'The model' } },
    errors: ['not_found'],
    handle: retrieve,
  },
]
