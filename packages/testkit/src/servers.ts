import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { accessSync, constants, existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { delimiter, join } from 'node:path'

/** Something that must not outlive the tests that started it. */
export interface Tracked {
  /** For the message about a leak. */
  readonly what: string
  /** Processes that live now; asked again after each {@link retrack}. */
  readonly pids: () => readonly number[]
  readonly folder?: string
  readonly stop: () => Promise<void>
}

const env = process.env
const tracked = new Set<Tracked>()
let guardian: ChildProcess | undefined

/** Remembers what was started. Call the result once it has ended. */
export function track(item: Tracked): () => void {
  tracked.add(item)
  retrack()
  return () => {
    tracked.delete(item)
    retrack()
  }
}

/** Says that pids of tracked things have changed. */
export function retrack(): void {
  guardian ??= startGuardian()
  const pids = [...tracked].flatMap((item) => item.pids())
  const folders = [...tracked].flatMap((item) => (item.folder === undefined ? [] : [`'${item.folder}'`]))
  const kill = pids.length > 0 ? `kill -9 ${pids.join(' ')}; sleep 0.5; ` : ''
  const remove = folders.length > 0 ? `rm -rf ${folders.join(' ')}; ` : ''
  guardian.stdin?.write(`${kill}${remove}:\n`)
}

/**
 * Stops what a test file has left running and then throws, naming it. Call it when the file is done:
 * `afterAll(leakCheck)`.
 */
export async function leakCheck(): Promise<void> {
  const left = [...tracked].toReversed()
  for (const item of left) await item.stop()
  if (left.length > 0) throw new Error(`left running by this test file: ${left.map((item) => item.what).join(', ')}`)
}

// A shell that does its last line of input when this process is gone, however it went: an exit hook would not run after a
// SIGKILL, which is how a test runner ends a worker that hangs. In a session of its own, so that Ctrl-C spares it.
function startGuardian(): ChildProcess {
  const script = 'last=:; while IFS= read -r line; do last=$line; done; eval "$last" 2>/dev/null'
  const child = spawn('/bin/sh', ['-c', script], { stdio: ['pipe', 'ignore', 'ignore'], detached: true })
  child.unref()
  if (child.stdin instanceof Socket) child.stdin.unref()
  child.stdin?.on('error', () => {})
  return child
}

/** Path of redis-server: $REDIS_SERVER, the PATH, or installed with apt-get when root on Debian. Throws when there is none. */
export function findRedis(): string {
  return findProgram('redis-server', 'REDIS_SERVER', 'apt-get install redis-server, brew install redis')
}

/** Path of pgbouncer: $PGBOUNCER_BIN, the PATH, or installed with apt-get when root on Debian. Throws when there is none. */
export function findPgbouncer(): string {
  return findProgram('pgbouncer', 'PGBOUNCER_BIN', 'apt-get install pgbouncer, brew install pgbouncer')
}

/** Reverse proxies that the snippets in deploy/proxies are for. */
export type HttpProxyName = 'nginx' | 'haproxy' | 'caddy'

/** Path of a reverse proxy: $NGINX_BIN, $HAPROXY_BIN or $CADDY_BIN, the PATH, or installed with apt-get when root on Debian. Throws when there is none. */
export function findHttpProxy(name: HttpProxyName): string {
  return findProgram(name, `${name.toUpperCase()}_BIN`, `apt-get install ${name}, brew install ${name}`)
}

/** Path of openssl: $OPENSSL_BIN, the PATH, or installed with apt-get when root on Debian. Throws when there is none. */
export function findOpenssl(): string {
  return findProgram('openssl', 'OPENSSL_BIN', 'apt-get install openssl, brew install openssl')
}

function findProgram(name: string, variable: string, howTo: string): string {
  const given = env[variable]
  if (given !== undefined) return requireProgram(given, variable)
  const path = onPath(name) ?? (install(name) ? onPath(name) : undefined)
  if (path !== undefined) return path
  throw new Error(
    `${name} is missing, and these tests do not skip. Install it (${howTo}) or set ${variable} to its path`,
  )
}

/**
 * Folder with the `initdb` and `postgres` of the system's PostgreSQL 15 or later: $POSTGRES_BIN, the newest under
 * /usr/lib/postgresql, the PATH, or installed with apt-get when root on Debian. Throws when there is none.
 */
export function findPostgres(): { readonly bin: string; readonly major: number } {
  const given = env['POSTGRES_BIN']
  if (given !== undefined) requireProgram(join(given, 'postgres'), 'POSTGRES_BIN')
  const find = (): { bin: string; major: number } | undefined =>
    (given === undefined ? postgresFolders() : [given])
      .map((bin) => ({ bin, major: majorOf(join(bin, 'postgres')) }))
      .find(({ major }) => major >= 15)
  const found = find() ?? (given === undefined && install('postgresql') ? find() : undefined)
  if (found) return found
  throw new Error(
    'PostgreSQL 15 or later is missing, and these tests do not skip. Install it (apt-get install postgresql, ' +
      'brew install postgresql) or set POSTGRES_BIN to the folder that holds initdb and postgres',
  )
}

function postgresFolders(): string[] {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).toSorted((a, b) => Number(b) - Number(a)) : []
  const folders = [...versions.map((version) => join(debian, version, 'bin')), ...searchPath()]
  return folders.filter((folder) => isProgram(join(folder, 'postgres')) && isProgram(join(folder, 'initdb')))
}

function majorOf(postgres: string): number {
  return Number(/(\d+)/.exec(execFileSync(postgres, ['--version'], { encoding: 'utf8' }))?.[1] ?? 0)
}

function searchPath(): string[] {
  return [...(env['PATH'] ?? '').split(delimiter), '/usr/bin', '/usr/sbin', '/usr/local/bin'].filter(
    (part) => part !== '',
  )
}

function onPath(program: string): string | undefined {
  return searchPath()
    .map((folder) => join(folder, program))
    .find((path) => isProgram(path))
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function requireProgram(path: string, variable: string): string {
  if (isProgram(path)) return path
  throw new Error(`${variable} is set, but ${path} is not a program that can be run`)
}

// False when this is not a Debian where we are root, or when it fails; the caller then says what is missing.
function install(name: string): boolean {
  const apt = onPath('apt-get')
  if (apt === undefined || process.getuid?.() !== 0) return false
  // Debian starts a server as soon as it is installed; the policy forbids it. One that exists is somebody else's.
  const policy = '/usr/sbin/policy-rc.d'
  const ours = !existsSync(policy)
  if (ours) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  try {
    const options = { stdio: 'ignore', env: { ...env, DEBIAN_FRONTEND: 'noninteractive' } } as const
    execFileSync(apt, ['update'], options)
    execFileSync(apt, ['install', '-y', '--no-install-recommends', name], options)
    return true
  } catch {
    return false
  } finally {
    if (ours) rmSync(policy, { force: true })
  }
}
