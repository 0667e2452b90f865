import { ApiError, CliError, reasonOf } from '../errors.ts'
import { findServer } from '../server.ts'
import { type Check, ok, problem } from './check.ts'

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
    if (checks[0]?.status === 'ok') checks.push(await key(client))
    return checks
  } finally {
    await client.close()
  }
}

async function readiness(url: string): Promise<Check> {
  try {
    const response = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(10_000) })
    if (response.ok) return ok('api', `${url} is ready`)
    const text = (await response.text()).slice(0, 500)
    return problem(
      'api',
      `${url} is not ready (${response.status}): ${reasonsIn(text)}`,
      'The checks of the database and the lanes say why.',
    )
  } catch (error) {
    const detail = `nothing answers at ${url}: ${error instanceof Error && error.cause ? reasonOf(error.cause) : reasonOf(error)}`
    return problem('api', detail, 'Start it with: npm start (or askonce api). Is ASKONCE_URL right?')
  }
}

/** `problems` as our processes list them; anything else as it came. */
function reasonsIn(text: string): string {
  try {
    const { problems } = JSON.parse(text) as { problems?: unknown }
    if (Array.isArray(problems)) return problems.map(String).join('; ')
  } catch {
    // Not ours: a proxy in between.
  }
  return text
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
