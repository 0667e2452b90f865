import { hostname } from 'node:os'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { version } from '@askonce/config'
import { apiDrainMs } from '@askonce/core'
import { openWaker, type Waker } from '@askonce/queue'
import { isDataError, readDatabaseId } from '@askonce/store'
import { errorReason, Outage, tellQueueShared } from '@askonce/telemetry'
import type { FastifyInstance } from 'fastify'
import { assemble, type Assembly } from './assemble.ts'
import type { ApiContext } from './context.ts'
import { addDocs } from './docs-page.ts'
import { ensureBootstrapKey } from './keys.ts'
import { atMost, patiently } from './patience.ts'
import { allRoutes } from './routes/index.ts'
import { addRoutes, createServer } from './server.ts'

const bootstrapRetryMs = 1_000

export interface RunningApi {
  /** `http://host:port`, with an address that can be called from this machine. */
  address: string
  /** Whether the configured key is known to be revoked: it stays so, and nobody gets in with it. */
  bootstrapKeyIsRevoked: () => boolean
  /** Takes no new connections, answers what is under way (waits at once, with the present state), then closes everything. */
  close(): Promise<void>
}

/**
 * Starts the HTTP API. Postgres and BullMQ may be away now and at any time: requests that need them get 503 until they are
 * back. Rejects when the port cannot be had. The schema is the caller's to check. `waker` is for tests.
 */
export async function startApi(context: ApiContext, waker: Waker = wakerOf(context)): Promise<RunningApi> {
  const startedAtMs = performance.now()
  const { config, log } = context
  const assembly = assemble(context, waker)
  const { parts } = assembly
  const app = createServer(parts, {
    onClosing: () => {
      parts.waits.close()
      parts.streams.close()
    },
    onUnavailable: assembly.unavailable,
  })
  const stopping = new AbortController()
  let revoked = false
  try {
    const routes = allRoutes(config.limits)
    addRoutes(app, parts, routes)
    await addDocs(app, parts, routes)
    // The first look has an end; without Postgres the key follows later.
    const added = addBootstrapKey(context, assembly, stopping.signal).then((isRevoked) => (revoked = isRevoked))
    await atMost(2_000, added)
    await listen(app, config.http)
  } catch (error) {
    stopping.abort()
    await app.close()
    await assembly.close()
    throw error
  }
  const address = addressOf(app)
  const duration = Math.round(performance.now() - startedAtMs)
  log.event('api.started', { address, version, pid: process.pid, host: hostname(), duration_ms: duration })

  let closed: Promise<void> | null = null
  const close = async (): Promise<void> => {
    const sinceMs = performance.now()
    log.event('api.stopping')
    stopping.abort()
    await closeServer(app)
    await assembly.close()
    log.event('api.stopped', { duration_ms: Math.round(performance.now() - sinceMs) })
  }
  return { address, bootstrapKeyIsRevoked: () => revoked, close: () => (closed ??= close()) }
}

function wakerOf({ queue, databaseUrl, log }: ApiContext): Waker {
  const outage = new Outage(log, 'queue')
  return openWaker(queue, {
    onError: () => undefined,
    onSent: (error) => (error === null ? outage.worked() : outage.failed(error)),
    databaseId: () => readDatabaseId(databaseUrl),
    onShared: (reason) => tellQueueShared(log, reason),
  })
}

async function closeServer(app: FastifyInstance): Promise<void> {
  const drained = app.close()
  try {
    await patiently(drained, undefined, apiDrainMs)
  } catch {
    app.server.closeAllConnections()
    await drained
  }
}

async function listen(app: FastifyInstance, { host, port }: ApiContext['config']['http']): Promise<void> {
  try {
    await app.listen({ host, port })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const where = `${host}:${port}`
    if (code === 'EADDRINUSE')
      throw new Error(`${where} is in use by another program; set PORT to another one`, { cause: error })
    if (code === 'EACCES')
      throw new Error(`not allowed to listen on ${where}; set PORT to 1024 or more`, { cause: error })
    if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') {
      throw new Error(`this machine has no address ${host}; set HOST to one that it has, such as 127.0.0.1`, {
        cause: error,
      })
    }
    throw error
  }
}

/** An unspecified address is shown as one that can be called. */
function addressOf(app: FastifyInstance): string {
  const { address, port } = app.server.address() as AddressInfo
  const host = address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`
}

/** Makes sure that the configured key exists, once Postgres answers. Says whether it was revoked. */
async function addBootstrapKey(context: ApiContext, { parts }: Assembly, signal: AbortSignal): Promise<boolean> {
  const key = context.config.bootstrapKey?.reveal()
  if (key === undefined) return false
  while (!signal.aborted) {
    try {
      const { tenantId, revokedAt } = await patiently(ensureBootstrapKey(parts.db, key, 'bootstrap'))
      context.log.event(revokedAt === null ? 'api.key_ready' : 'api.key_revoked', { tenant: tenantId })
      return revokedAt !== null
    } catch (error) {
      if (isDataError(error)) {
        context.log.event('process.failed', { reason: `bootstrap key: ${errorReason(error)}` })
        return false
      }
      await sleep(bootstrapRetryMs, undefined, { signal }).catch(() => undefined)
    }
  }
  return false
}
