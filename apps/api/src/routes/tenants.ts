import { createTenant, listTenants, readTenant, readTenantUse, setTenant, type Tenant } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Parts } from '../context.ts'
import { patiently } from '../patience.ts'
import { Problem } from '../problem.ts'
import { readBody } from '../request-body.ts'
import { idOf, sendJson, type ApiRoute } from '../route.ts'
import { noQuery } from '../schemas/queries.ts'
import { newTenant, tenant, tenantChange, tenantList, tenantWithUse } from '../schemas/tenants.ts'
import { settingsOf, tenantJson, useJson } from '../tenant-view.ts'

const noSuchTenant = (): Problem => new Problem('not_found', 'There is no tenant of this name.', { param: 'id' })

async function list(parts: Parts, _request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const tenants = await patiently(listTenants(parts.db))
  return sendJson(reply, 200, { object: 'list', data: tenants.map(tenantJson), has_more: false, next_cursor: null })
}

async function create(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { id, ...given } = readBody(newTenant, request.body)
  const row = await patiently(createTenant(parts.db, id, settingsOf(given)))
  if (row === null) throw new Problem('already_exists', 'There is a tenant of this name.', { param: '/id' })
  note(parts, request, row)
  return sendJson(reply, 201, tenantJson(row))
}

async function get(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const row = await patiently(readTenant(parts.db, idOf(request)))
  if (row === null) throw noSuchTenant()
  // Its cost follows what this tenant has: it takes its turn with the other reads of whoever asks.
  const use = await parts.reads.run({ tenantId: request.caller.tenantId, reply }, (db) => readTenantUse(db, row.id))
  return sendJson(reply, 200, { ...tenantJson(row), use: useJson(use) })
}

async function change(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const given = settingsOf(readBody(tenantChange, request.body))
  if (Object.values(given).every((value) => value === undefined)) {
    throw new Problem('invalid_request', 'The body names nothing to change.', { param: '' })
  }
  const row = await patiently(setTenant(parts.db, idOf(request), given))
  if (row === null) throw noSuchTenant()
  note(parts, request, row)
  return sendJson(reply, 200, tenantJson(row))
}

/** Who may spend how much is worth a line: whose key it was, and whose limits it set. */
function note({ log }: Parts, { id, caller }: FastifyRequest, { id: tenantId }: Tenant): void {
  log.event('tenant.changed', { req_id: id, tenant: tenantId, reason: `by the key ${caller.key.id}` })
}

const shared = { scope: 'operator', tag: 'Tenants', query: noQuery } as const

export const tenantRoutes: ApiRoute[] = [
  {
    ...shared,
    method: 'GET',
    path: '/v1/tenants',
    summary: 'List tenants',
    description: 'Every tenant, by name, with its limits.',
    accepts: [],
    answers: { 200: { description: 'The tenants', schema: tenantList } },
    errors: [],
    handle: list,
  },
  {
    ...shared,
    method: 'POST',
    path: '/v1/tenants',
    summary: 'Make a tenant',
    description: 'Its keys are made by `askonce keys create --tenant`.',
    accepts: ['application/json'],
    body: newTenant,
    example: { id: 'research', max_running: 20, budget_usd: { day: 5 } },
    answers: { 201: { description: 'The tenant', schema: tenant } },
    errors: ['already_exists'],
    handle: create,
  },
  {
    ...shared,
    method: 'GET',
    path: '/v1/tenants/{id}',
    summary: 'Get a tenant and its use',
    accepts: [],
    answers: { 200: { description: 'The tenant', schema: tenantWithUse } },
    errors: ['not_found', 'rate_limited'],
    handle: get,
  },
  {
    ...shared,
    method: 'PATCH',
    path: '/v1/tenants/{id}',
    summary: 'Change the limits of a tenant',
    description:
      'Takes any of the members; what is left out stays, null takes a limit away. It holds within a second. A limit below what runs ends nothing: only nothing new starts.',
    accepts: ['application/json'],
    body: tenantChange,
    example: { max_running: 20, budget_usd: { day: 5, month: 100 } },
    answers: { 200: { description: 'The tenant', schema: tenant } },
    errors: ['not_found'],
    handle: change,
  },
]
