import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chooseUser, freePort } from '@askonce/embedded'
import { prepareLaunch } from './launched.ts'
import { findPgbouncer, track } from './servers.ts'

export interface TestPgbouncerOptions {
  /** Of a database on the server that it stands before; its user and password are the ones that it lets in. */
  readonly url: string
  /** Connections that it makes to the server, at most. */
  readonly poolSize: number
  /** Startup parameters that it drops instead of refusing them. */
  readonly ignore?: string
}

/** A private PgBouncer in transaction mode on a port that it keeps. */
export interface TestPgbouncer {
  /** Of the same database, through it. */
  readonly url: string
  readonly port: number
  readonly pid: number
  /** SIGKILL unless it is down, and up again on the same port. */
  restart(): Promise<void>
  /** SIGKILL, and waits for the end: every connection through it breaks. Bring it back with `restart`. */
  kill(): Promise<void>
  /** Freezes it: connections stay open and nothing goes through. */
  pause(): void
  resume(): void
  /** Stops it and removes its folder. Safe to call twice. */
  stop(): Promise<void>
}

/** Starts a private PgBouncer. It must be stopped by the end of the test file, see leakCheck. */
export async function startTestPgbouncer({ url, poolSize, ignore = '' }: TestPgbouncerOptions): Promise<TestPgbouncer> {
  const program = findPgbouncer()
  const server = new URL(url)
  const folder = mkdtempSync(join(tmpdir(), 'askonce-pgbouncer-'))
  chmodSync(folder, 0o711)
  // It refuses to run as root, as PostgreSQL does.
  const { ids } = chooseUser(folder)
  const port = await freePort()
  const settings = {
    listen_addr: '127.0.0.1',
    listen_port: port,
    unix_socket_dir: '',
    auth_type: 'scram-sha-256',
    auth_file: join(folder, 'users.txt'),
    pool_mode: 'transaction',
    default_pool_size: poolSize,
    max_client_conn: 500,
    // Its default, and well above any wait of these tests.
    query_wait_timeout: 120,
    ignore_startup_parameters: ignore,
  }
  const ini = [
    '[databases]',
    `* = host=127.0.0.1 port=${server.port}`,
    '[pgbouncer]',
    ...Object.entries(settings).map(([name, value]) => `${name} = ${value}`),
  ]
  const write = (name: string, text: string): void => {
    const path = join(folder, name)
    writeFileSync(path, text, { mode: 0o600 })
    if (ids.uid !== undefined && ids.gid !== undefined) chownSync(path, ids.uid, ids.gid)
  }
  write('users.txt', `"${decodeURIComponent(server.username)}" "${decodeURIComponent(server.password)}"\n`)
  write('pgbouncer.ini', `${ini.join('\n')}\n`)

  const launched = prepareLaunch({
    name: 'pgbouncer',
    program,
    args: [join(folder, 'pgbouncer.ini')],
    ready: /process up/,
    ids,
  })
  const stop = async (): Promise<void> => {
    await launched.down('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
    untrack()
  }
  const pids = (): number[] => (launched.pid === 0 ? [] : [launched.pid])
  const untrack = track({ what: `PgBouncer in ${folder}`, pids, folder, stop })
  try {
    await launched.up()
  } catch (error) {
    await stop()
    throw error
  }
  const through = new URL(url)
  through.port = String(port)
  return {
    url: through.href,
    port,
    get pid() {
      return launched.pid
    },
    async restart() {
      await launched.down('SIGKILL')
      await launched.up()
    },
    kill: () => launched.down('SIGKILL'),
    pause: launched.pause,
    resume: launched.resume,
    stop,
  }
}
