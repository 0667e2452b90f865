import { setTimeout as sleep } from 'node:timers/promises'
import { loadConfig } from '@askonce/config'
import { readOwner } from '@askonce/embedded'
import { CliError, exitCodes } from './errors.ts'
import type { Client, ClientOptions, Server } from './http.ts'

/** A command gives the server this long to come out of a 503; `batch` has its own patience. */
const commandPatienceMs = 15_000
const lookEveryMs = 200

/** ASKONCE_URL and ASKONCE_API_KEY, else the server that runs on ASKONCE_DATA_DIR. Throws CliError without one. */
export function findServer(): Server {
  const { client, dataDir } = loadConfig()
  const owner = readOwner(dataDir)
  const url = client.url ?? owner?.address ?? null
  if (url === null) {
    const message = owner === undefined ? `no server found: nothing runs on ${dataDir}` : 'the server is still starting'
    const hint =
      owner === undefined ? 'Start one with: npm start (or set ASKONCE_URL and ASKONCE_API_KEY)' : 'Try again.'
    throw new CliError(exitCodes.unreachable, message, hint)
  }
  // The key of the data directory belongs to the server there and is sent to no other.
  const apiKey = client.apiKey?.reveal() ?? (url === owner?.address ? owner.apiKey : undefined)
  return { url, apiKey: apiKey ?? null }
}

/** The same, but one that is only just being started is waited for. `onWait` is told why, each time that it changes. */
export async function awaitServer(patienceMs: number, onWait: (reason: string) => void): Promise<Server> {
  const giveUpAtMs = performance.now() + patienceMs
  let said = ''
  for (;;) {
    try {
      return findServer()
    } catch (error) {
      const mayCome = error instanceof CliError && error.exitCode === exitCodes.unreachable
      if (!mayCome || performance.now() + lookEveryMs > giveUpAtMs) throw error
      if (error.message !== said) onWait((said = error.message))
      await sleep(lookEveryMs)
    }
  }
}

/** Runs `use` with a client of the server, closed afterwards. */
export async function withClient<T>(use: (client: Client) => Promise<T>, options?: ClientOptions): Promise<T> {
  const server = findServer()
  // Loaded here: undici takes longer to load than most commands run, and --help needs none of it.
  const { Client } = await import('./http.ts')
  const client = new Client(server, options ?? { patienceMs: commandPatienceMs })
  try {
    return await use(client)
  } finally {
    await client.close()
  }
}
