import { randomUUID } from 'node:crypto'
import type { Server } from 'node:http'
import { Readable } from 'node:stream'
import { connectionsWithin, openFilesLimit } from '@askonce/config'
import { errorReason, type Log } from '@askonce/telemetry'
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest, type HTTPMethods } from 'fastify'
import { Arrivals } from './arrivals.ts'
import { authorize } from './authorize.ts'
import { Bodies } from './bodies.ts'
import { clientAddress } from './client-address.ts'
import type { Parts } from './context.ts'
import { Problem, problemDocument, problemHeaders, statusFor, toProblem } from './problem.ts'
import { answerRawProblem, isUnused } from './raw-problem.ts'
import { RefusedKeys } from './refused-keys.ts'
import type { ApiRoute } from './route.ts'
import { isAnthropicPath, isSdkPath, linkTo, prefixOf, tidyUrl } from './paths.ts'
import { anthropicError } from './sdk/dialect.ts'
import { noSuchRoute } from './sdk/no-such-route.ts'
import { queryProblem } from './schemas/issues.ts'

/** Headers must have arrived in this time; bodies are {@link Arrivals}' business. */
const headersTimeoutMs = 20_000
/** How often Node looks for requests beyond that time. */
const checkEveryMs = 5_000
/** Longer than the 60 s of common load balancers, or they meet closed connections. */
const keepAliveTimeoutMs = 75_000
/** A connection without traffic: longer than the longest wait. */
const idleTimeoutMs = 130_000
/** Refused connections are told of once in this time. */
const tellRefusedMs = 1_000

const requestIds = /^[A-Za-z0-9._:-]{1,128}$/
const methods: HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

export interface ServerEvents {
  /** The server takes no new connections from now on. */
  onClosing: () => void
  /** A request failed because Postgres is away. */
  onUnavailable: (error: unknown) => void
}

/** A server without routes, but with everything that all of them share: ids, errors in one shape, bodies as bytes, metrics. */
export function createServer(
  { config, log, metrics }: Pick<Parts, 'config' | 'log' | 'metrics'>,
  { onClosing, onUnavailable }: ServerEvents,
): FastifyInstance {
  const { publicUrl, trustProxy } = config.http
  const prefix = prefixOf(publicUrl)
  const docs = linkTo(publicUrl, '/docs')
  const app = fastify({
    logger: false,
    bodyLimit: config.limits.maxBodyBytes,
    requestTimeout: 0,
    keepAliveTimeout: keepAliveTimeoutMs,
    connectionTimeout: idleTimeoutMs,
    // A missing Host is refused below: Node would do it without a body.
    http: { headersTimeout: headersTimeoutMs, connectionsCheckingInterval: checkEveryMs, requireHostHeader: false },
    // An id of any length is not found; Fastify would stop at 100 characters and call it malformed.
    routerOptions: { maxParamLength: 16_384 },
    // Not the router's own options: whoever asks for the path afterwards, as for the form of an error, reads it tidied too.
    rewriteUrl: ({ url }) => tidyUrl(url ?? '/', prefix),
    trustProxy: trustProxy.length > 0 ? [...trustProxy] : false,
    // Requests that were on their way when the close began are answered; only then the connection ends.
    return503OnClosing: false,
    genReqId: ({ headers }) => {
      const given = headers['x-request-id']
      return typeof given === 'string' && requestIds.test(given) ? given : randomUUID()
    },
    frameworkErrors: (error, request, reply) => {
      void reply.header('x-request-id', request.id)
      sendProblem(reply, request, new Problem('invalid_request', 'The URL is malformed.', { cause: error }))
    },
    clientErrorHandler: (error, socket) => {
      if (!isUnused(error, socket)) return answerRawProblem(error, socket)
      // As long as one that has been used: its time for headers begins with their first byte.
      setTimeout(() => socket.bytesRead === 0 && socket.end(), keepAliveTimeoutMs - headersTimeoutMs).unref()
    },
  })
  limitConnections(app.server, connectionsWithin(openFilesLimit(), config), log)
  // An expectation that we do not know is passed over, as RFC 9110 allows: Node would answer 417 without a body.
  app.server.on('checkExpectation', (request, response) => app.server.emit('request', request, response))
  app.removeAllContentTypeParsers()
  const bodies = new Bodies(config.limits.maxBodyBytes)
  app.decorate('bodies', bodies)
  app.addContentTypeParser('application/json', (request: FastifyRequest) => bodies.read(request))
  // Node itself would tell every client to go on, before anybody knows whether its body is wanted.
  app.server.on('checkContinue', (request, response) => {
    bodies.expect(request, response)
    app.server.emit('request', request, response)
  })

  const arrivals = new Arrivals((socket) => {
    // As Node does it itself.
    const late = Object.assign(new Error('The request did not arrive in time.'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' })
    app.server.emit('clientError', late, socket)
  })
  app.decorate('arrivals', arrivals)
  // Not a hook: a request that Fastify refuses by itself has none.
  app.server.prependListener('request', (request) => arrivals.begin(request))
  app.addHook('onClose', (_app, done) => {
    arrivals.close()
    done()
  })
  app.decorateRequest('caller')
  app.decorateRequest('heldBytes', 0)
  app.addHook('onRequest', (request, reply, done) => {
    bodies.watch(request, reply)
    void reply.header('x-request-id', request.id).header('x-content-type-options', 'nosniff')
    // Where Anthropic's SDK looks for it.
    if (isAnthropicPath(request.url)) void reply.header('request-id', request.id)
    // Said before the body is read: it does not matter.
    if (request.is404) return done(noSuchRoute(request, docs))
    const { host, 'content-encoding': encoding } = request.headers
    if (host === undefined && request.raw.httpVersion === '1.1')
      return done(new Problem('invalid_request', 'The Host header is missing.', { param: 'Host' }))
    if (encoding === undefined || encoding === 'identity') return done()
    done(
      new Problem('unsupported_media_type', 'Send the body without Content-Encoding.', { param: 'Content-Encoding' }),
    )
  })
  let closing = false
  app.addHook('preClose', (done) => {
    closing = true
    onClosing()
    done()
  })
  // Else an answered connection would idle on for its keep-alive time, and hold up the close.
  app.addHook('onSend', (request, reply, payload, done) => {
    if (closing || bodies.isUndecided(request.raw)) void reply.header('connection', 'close')
    if (request.method !== 'HEAD' || !(payload instanceof Readable)) return done()
    // Fastify would read it to its end and throw it away, whoever is still there.
    payload.destroy()
    done(null, Readable.from([]))
  })
  app.addHook('onResponse', (request, reply, done) => {
    arrivals.answered(request.raw)
    bodies.drain(request.raw)
    // A stream that had begun before could not say so.
    if (closing) request.raw.socket.end()
    const route = request.is404 ? 'unknown' : `${request.method} ${request.routeOptions.url ?? 'unknown'}`
    metrics.httpRequests.inc({ route, status: String(reply.statusCode) })
    metrics.httpDuration.observe({ route }, reply.elapsedTime / 1000)
    if (reply.statusCode < 500) log.event('request.ended', requestFields(request, reply, route))
    done()
  })
  const refusedKeys = new RefusedKeys(log)
  app.setErrorHandler((error, request, reply) => {
    // Its client has left, and the stream of its answer was closed for that: nothing went wrong.
    if (reply.raw.destroyed && (error as { code?: unknown }).code === 'ERR_STREAM_PREMATURE_CLOSE') return
    const problem = toProblem(error)
    sendProblem(reply, request, problem)
    const route = `${request.method} ${request.routeOptions.url ?? 'unknown'}`
    if (problem.code === 'unauthorized' || problem.code === 'forbidden') {
      const { code, status } = problem
      refusedKeys.note(clientAddress(request), { req_id: request.id, route, status, error_code: code })
    }
    if (problem.status < 500) return
    const cause = problem.extras.cause ?? error
    const reason = errorReason(cause)
    if (problem.code === 'unavailable') onUnavailable(cause)
    // Overload has a line of its own, once a second: shedding must stay cheap.
    const level = problem.code === 'internal_error' ? 'error' : problem.code === 'overloaded' ? 'debug' : 'warn'
    log.event('request.failed', { ...requestFields(request, reply, route), error_code: problem.code, reason }, level)
  })
  app.setNotFoundHandler((request, reply) => sendProblem(reply, request, noSuchRoute(request, docs)))
  return app
}

function requestFields(request: FastifyRequest, reply: FastifyReply, route: string) {
  return {
    req_id: request.id,
    client: clientAddress(request),
    tenant: request.caller?.tenantId,
    route,
    status: reply.statusCode,
    duration_ms: Math.round(reply.elapsedTime),
  }
}

/** The one place where an HTTP error is written. */
function sendProblem(reply: FastifyReply, request: FastifyRequest, problem: Problem): void {
  // Fastify ends the connection of a body that was not read to its end. It is, see Bodies.drain, and a client that is cut off while it sends does not
  // read the answer.
  void reply.removeHeader('connection').code(statusFor(problem, request)).headers(problemHeaders(problem))
  if (!isAnthropicPath(request.url)) return void reply.send(JSON.stringify(problemDocument(problem, request)))
  void reply
    .header('content-type', 'application/json; charset=utf-8')
    .send(JSON.stringify(anthropicError(problem, request.id)))
}

/** Serves the routes, and answers 405 for the methods that their paths do not have. */
export function addRoutes(app: FastifyInstance, parts: Parts, routes: readonly ApiRoute[]): void {
  for (const route of routes) addRoute(app, parts, route)
  for (const path of new Set(routes.map((route) => route.path))) {
    const group = routes.filter((route) => route.path === path)
    const allowed: string[] = group.flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method]))
    const allow = allowed.join(', ')
    app.route({
      method: methods.filter((method) => !allowed.includes(method)),
      url: toUrl(path),
      // Before the body is read: it does not matter.
      onRequest: (request, _reply, done) => {
        done(
          new Problem('method_not_allowed', `${request.method} is not allowed here, only ${allow}.`, {
            headers: { allow },
          }),
        )
      },
      handler: () => undefined,
    })
  }
}

function addRoute(app: FastifyInstance, parts: Parts, route: ApiRoute): void {
  const { method, path, scope, query, accepts, streamed = false, maxBytes = () => Number.POSITIVE_INFINITY } = route
  const mayBeAbsent = query.safeParse({}).success
  void app.register((scoped, _options, done) => {
    if (accepts.includes('application/x-ndjson')) {
      scoped.addContentTypeParser('application/x-ndjson', (request: FastifyRequest) =>
        request.server.bodies.read(request),
      )
    }
    if (streamed) {
      scoped.removeAllContentTypeParsers()
      for (const type of accepts) {
        scoped.addContentTypeParser(type, (request, _body, next) => {
          request.server.bodies.welcome(request.raw)
          next(null)
        })
      }
    }
    scoped.route({
      method,
      url: toUrl(path),
      onRequest: async (request) => {
        if (scope !== null) request.caller = await authorize(parts.keys, request, scope)
        if (streamed) {
          request.server.bodies.check(request.raw, maxBytes(parts.config.limits))
          request.server.arrivals.release(request.raw)
        }
        if (mayBeAbsent && !request.url.includes('?')) return
        if (isSdkPath(path)) request.query = withoutSdkParameters(request.query as Record<string, unknown>)
        const checked = query.safeParse(request.query, { reportInput: true })
        if (!checked.success) throw queryProblem(checked.error)
        request.query = checked.data
      },
      handler: (request, reply) => route.handle(parts, request, reply),
    })
    done()
  })
}

/** At the limit Node closes new connections at once. The system would do so too where no file can be opened any more, and nobody would hear of it. */
function limitConnections(server: Server, most: number, log: Log): void {
  server.maxConnections = most
  let refused = 0
  let timer: NodeJS.Timeout | null = null
  server.on('drop', () => {
    refused += 1
    timer ??= setTimeout(() => {
      const reason = `${most} are open, the most for this process; the limit of open files (ulimit -n) may lower it`
      log.event('api.connections_refused', { count: refused, reason })
      refused = 0
      timer = null
    }, tellRefusedMs).unref()
  })
}

/** The query of an SDK's request without what the SDKs put into it of their own: it says nothing here. */
function withoutSdkParameters({ beta: _beta, 'api-version': _version, ...query }: Record<string, unknown>): object {
  return query
}

/** `/v1/jobs/{id}` as Fastify writes it. Names of models hold slashes. */
function toUrl(path: string): string {
  return path.replace('{model}', '*').replaceAll(/\{(\w+)\}/g, ':$1')
}
