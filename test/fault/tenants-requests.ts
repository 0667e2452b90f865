import { chat } from './system.ts'

interface Operation {
  parameters: { name: string; in: string }[]
  requestBody?: { content: Record<string, { schema: { $ref?: string } }> }
}

/** As much of /openapi.json as is read here. */
export interface OpenApi {
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, { properties?: Record<string, unknown> }> }
}

export interface About {
  id: string
  key: string
}

interface RequestAbout {
  route: string
  method: string
  path: string
  body?: object
  headers?: Record<string, string>
}

/** Query parameters that name no job; a route's other parameters have to be known here. */
const neutral = new Set([
  'state',
  'waiting_for',
  'created_after',
  'metadata',
  'key_prefix',
  'paid',
  'limit',
  'cursor',
  'wait',
  'accept_duplicate_charge',
])

/**
 * A request to every route of the document under /v1/jobs, about one job. Throws on a route that cannot be asked about a job in the ways
 * that are known here, so that a new one does not pass by unseen.
 */
export function requestsAbout(openapi: OpenApi, about: About): RequestAbout[] {
  return Object.entries(openapi.paths)
    .filter(([path]) => path.startsWith('/v1/jobs'))
    .flatMap(([path, methods]) =>
      Object.entries(methods).flatMap(([method, operation]) =>
        requests(openapi, path, method.toUpperCase(), operation, about),
      ),
    )
}

function requests(
  openapi: OpenApi,
  template: string,
  method: string,
  operation: Operation,
  about: About,
): RequestAbout[] {
  const route = `${method} ${template}`
  const path = template.replace('{id}', about.id)
  const inQuery = operation.parameters.filter((parameter) => parameter.in === 'query').map(({ name }) => name)
  const known = path !== template || inQuery.includes('key') || method === 'POST'
  const strange = inQuery.filter((name) => name !== 'key' && !neutral.has(name))
  if (path.includes('{') || strange.length > 0 || !known) throw new Error(`${route}: how does it name a job?`)
  const headers = { 'idempotency-key': about.key }
  const query = inQuery.includes('key')
    ? [`?key=${about.key}`]
    : inQuery.includes('wait') && method === 'GET'
      ? ['', '?wait=1']
      : ['']
  const withKey = operation.parameters.some(({ name }) => name === 'Idempotency-Key') ? { headers } : {}
  return query.flatMap((text) =>
    bodies(openapi, route, operation, about).map((body) => {
      const request: RequestAbout = { route, method, path: path + text }
      return Object.assign(request, withKey, body === undefined ? {} : { body })
    }),
  )
}

/** Bodies by the members that a route's body has. */
function bodies(
  openapi: OpenApi,
  route: string,
  { requestBody }: Operation,
  { id, key }: About,
): (object | undefined)[] {
  if (requestBody === undefined) return [undefined]
  const { $ref = '' } = requestBody.content['application/json']?.schema ?? {}
  const members = Object.keys(openapi.components.schemas[$ref.replace('#/components/schemas/', '')]?.properties ?? {})
  const later = { delay_seconds: 3_600 }
  if (members.includes('operation')) return [{ ...chat('b'), ...later }]
  if (members.includes('jobs')) return [{ jobs: [{ key, ...chat('b'), ...later }] }]
  const consent = members.includes('accept_duplicate_charge') ? [{ accept_duplicate_charge: true }] : []
  if (members.includes('ids')) return [{ ids: [id] }, ...consent.map((more) => ({ ids: [id], ...more }))]
  if (members.includes('reason')) return [{}, { reason: 'because', generation: 1 }, ...consent]
  throw new Error(`${route}: what does its body name?`)
}
