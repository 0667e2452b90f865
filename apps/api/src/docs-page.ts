import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance } from 'fastify'
import { addRoutes } from './server.ts'
import type { Parts } from './context.ts'
import { buildOpenApi } from './openapi.ts'
import { sendJson, type ApiRoute } from './route.ts'
import { anyQuery } from './schemas/queries.ts'

/**
 * Everything comes from this server. No `upgrade-insecure-requests`, which the page's default has: it would break the page on
 * every plain-http address but localhost. Inline styles are what the page's own code writes.
 */
const contentSecurityPolicy =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** /openapi.json and the page that shows it. */
export async function addDocs(app: FastifyInstance, parts: Parts, routes: readonly ApiRoute[]): Promise<void> {
  const openApiRoute: ApiRoute = {
    method: 'GET',
    path: '/openapi.json',
    scope: null,
    tag: 'Server',
    summary: 'This description',
    query: anyQuery,
    accepts: [],
    answers: { 200: { description: 'OpenAPI 3.1', contentType: 'application/json' } },
    errors: [],
    handle: (_parts, _request, reply) => Promise.resolve(sendJson(reply, 200, text)),
  }
  const { publicUrl } = parts.config.http
  const document = buildOpenApi([...routes, openApiRoute], publicUrl ?? '.')
  const text = Buffer.from(JSON.stringify(document))
  addRoutes(app, parts, [openApiRoute])
  await app.register(swagger, { mode: 'static', specification: { document: document as never } })
  await app.register(swaggerUi, {
    routePrefix: '/docs',
    // Relative, whatever a proxy has taken off the path: `./docs/…` for the page at …/docs, `./…` for the one at …/docs/.
    indexPrefix: '.',
    uiHooks: {
      preHandler: (request, reply, done) => {
        if (!request.url.endsWith('/static/index.html')) return done()
        void reply.redirect('../')
      },
    },
    // The page reads its own copy of the document, one folder below.
    transformSpecification: (shown) => ({ ...shown, servers: [{ url: publicUrl ?? '..' }] }),
    transformSpecificationClone: false,
    staticCSP: contentSecurityPolicy,
    theme: {
      title: 'Askonce API',
      css: [{ filename: 'askonce.css', content: '.swagger-ui .topbar { display: none }' }],
    },
    uiConfig: { validatorUrl: null, deepLinking: true, docExpansion: 'list', defaultModelsExpandDepth: 0 },
  })
}
