import type { Postmaster } from './postmaster.ts'
import { isAlive } from './process.ts'

export interface Supervisor {
  current(): Postmaster
  /** Stops watching, waits for a restart that is under way, and says which server is the last. */
  stop(): Promise<Postmaster>
}

const LOOK_MS = 500
const RETRY_MS = 2_000

/**
 * Starts the server again whenever its postmaster has died (killed for lack of memory, say). It must come back on the same
 * port, or no pool would find it, so a failing restart is tried again for ever. A crash of a single connection is not seen
 * here: PostgreSQL recovers from that by itself.
 *
 * Looks by pid, since a server that was taken over is not our child and its end sends no event.
 */
export function supervise(
  first: Postmaster,
  restart: () => Promise<Postmaster>,
  log: (text: string) => void,
): Supervisor {
  let server = first
  let stopped = false
  let timer: NodeJS.Timeout
  let work: Promise<void> = Promise.resolve()

  const look = async (): Promise<void> => {
    if (isAlive(server)) return plan(LOOK_MS)
    log(`the embedded database (process ${server.pid}) has died; starting it again`)
    try {
      server = await restart()
      log(`the embedded database is running again (process ${server.pid})`)
      plan(LOOK_MS)
    } catch (error) {
      log(error instanceof Error ? error.message : String(error))
      plan(RETRY_MS)
    }
  }
  const plan = (delayMs: number): void => {
    if (stopped) return
    timer = setTimeout(() => {
      work = look()
    }, delayMs)
    timer.unref()
  }
  plan(LOOK_MS)
  return {
    current: () => server,
    async stop() {
      stopped = true
      clearTimeout(timer)
      await work
      return server
    },
  }
}
