import { ApiError, CliError, reasonOf } from '../errors.ts'
import { findServer } from '../server.ts'
import { type Check, ok, problem, warn } from './check.ts'

/** The API: found, ready, and the key is one of its own. */
export async function checkServer(): Promise<Check[]> {
  let server: ReturnType<typeof findServer>
  try {
    server = findServer()
  } catch (error) {
    return [
      problem('api', reasonOf(error), (error instanceof CliError ? error.hint : null) ?? 'Start one with: npm start'),
    ]
  }
  const { Client } = await import('../http.ts')
  const client = new Client(server, { patienceMs: 0 })
  try {
    const checks = [await readiness(server.url)]
    if (checks[0]?.status !== 'problem') checks.push(await key(client))
    return checks
  } finally {
    await client.close()
  }
}

async function readiness(url: string): Promise<Check> {
  try {
    const response = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(10_000) })
    const { status, reason } = readState(await response.text())
    if (!response.ok)
      return problem('api', `${url} is not ready (${response.status}): ${reason}`, 'See the checks of the database.')
    if (status === 'degraded')
      return warn('api', `${url} serves, but something is in trouble: ${reason}`, 'See the other checks.')
    return ok('api', `${url} is ready`)
  } catch (error) {
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
    return problem(
      'api',
      `nothing answers at ${url}: ${reasonOf(cause)}`,
      'Start it: npm start, or askonce api. Is ASKONCE_URL right?',
    )
  }
}

/** What `/readyz` says; a proxy in between may say anything. */
function readState(text: string): { status: string; reason: string } {
  try {
    const { status, checks, lanes } = JSON.parse(text) as Readiness
    const broken = Object.entries(checks).filter(([, { ok: fine }]) => !fine)
    const closed = lanes.filter(({ state }) => state === 'stopped')
    const reasons = [
      ...broken.map(([name, { reason }]) => `${name}: ${reason ?? 'no reason given'}`),
      ...closed.map(({ name, reason }) => `lane ${name} stopped: ${reason ?? 'no reason given'}`),
    ]
    return { status, reason: reasons.join('; ') }
  } catch {
    return { status: 'unknown', reason: text.slice(0, 300) }
  }
}

interface Readiness {
  status: string
  checks: Record<string, { ok: boolean; reason: string | null }>
  lanes: { name: string; state: string; reason: string | null }[]
}

async function key(client: { send: (call: { method: 'GET'; path: string }) => Promise<unknown> }): Promise<Check> {
  try {
    await client.send({ method: 'GET', path: '/v1/jobs?limit=1' })
    return ok('api key', 'accepted')
  } catch (error) {
    const todo = error instanceof ApiError ? error.hint : null
    return problem('api key', reasonOf(error), todo ?? 'Look at the server’s log.')
  }
}
