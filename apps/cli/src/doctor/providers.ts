import { connect } from 'node:net'
import type { Config, LaneConfig } from '@askonce/config'
import { reasonOf } from '../errors.ts'
import { type Check, ok, problem, warn } from './check.ts'

const timeoutMs = 5_000

/** Every provider that is on: reachable, and its key accepted. Asks for the list of models only, which costs nothing. */
export async function checkProviders({ lanes, providersOn }: Config): Promise<Check[]> {
  if (!providersOn) {
    return [
      ok(
        'providers',
        'none is set up (OPENAI_API_KEY, ANTHROPIC_API_KEY …): only models named simulated/* are answered, with made-up text',
      ),
    ]
  }
  return Promise.all(lanes.filter((lane) => lane.baseUrl !== null).map(checkProvider))
}

async function checkProvider(lane: LaneConfig): Promise<Check> {
  const name = `provider ${lane.name}`
  const base = lane.baseUrl ?? ''
  try {
    await reach(new URL(base))
  } catch (error) {
    return problem(
      name,
      `${base} cannot be reached: ${reasonOf(error)}`,
      'Is the address right, and may this machine go there?',
    )
  }
  const path = lane.kind === 'anthropic' ? '/v1/models' : '/models'
  try {
    const { status } = await fetch(base + path, { headers: headersOf(lane), signal: AbortSignal.timeout(timeoutMs) })
    if (status === 401 || status === 403) {
      const key = lane.apiKey === null ? 'asks for a key, and none is set' : 'refuses the key'
      return problem(
        name,
        `${base} ${key} (${status})`,
        `Set the right key on the API and the workers, then: askonce lanes resume ${lane.name}`,
      )
    }
    if (status < 300) return ok(name, `${base}${lane.apiKey === null ? ', no key set' : ', key accepted'}`)
    // Not every compatible server lists its models.
    return ok(name, `${base} answers (${status} to ${path}, so the key was not tried)`)
  } catch (error) {
    return warn(
      name,
      `${base} accepts connections, but does not answer: ${reasonOf(error)}`,
      'Is it an API of that kind?',
    )
  }
}

function headersOf({ kind, apiKey }: LaneConfig): Record<string, string> {
  if (apiKey === null) return {}
  return kind === 'anthropic'
    ? { 'x-api-key': apiKey.reveal(), 'anthropic-version': '2023-06-01' }
    : { authorization: `Bearer ${apiKey.reveal()}` }
}

/** A TCP connection and nothing more: told apart from a server that is there but slow. */
function reach({ hostname, port, protocol }: URL): Promise<void> {
  return new Promise((resolve, reject) => {
    const host = hostname.replace(/^\[|\]$/g, '')
    const socket = connect({ host, port: Number(port) || (protocol === 'https:' ? 443 : 80) })
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error(`no connection within ${timeoutMs / 1000} s`)))
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.destroy()
      resolve()
    })
  })
}
