import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chownSync,
  closeSync,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import type { ServerFiles } from './binaries.ts'
import { EmbeddedPostgresError, errnoOf, fileError, outputError } from './errors.ts'
import { dataArgument } from './postmaster.ts'
import type { RunAs } from './run-as.ts'
import { removeDeadScratch, scratchName } from './scratch.ts'

/** The superuser of every cluster made here, and the database of the embedded server. */
export const USER = 'askonce'

export interface InitOptions {
  /** False leaves the flushing to the kernel: for tests. */
  readonly sync?: boolean
  /** Called before the work begins, which takes about a second. */
  readonly onCreate?: () => void
}

/**
 * Makes the cluster in `clusterDir` unless it is there: UTF8, locale C, data checksums, passwords by SCRAM, superuser
 * `askonce` with a random password. It is made next to its place and renamed when complete and on disk, so being killed
 * at any moment leaves either a whole cluster or none.
 *
 * Throws EmbeddedPostgresError when initdb fails or the folder holds something else.
 */
export async function initCluster(files: ServerFiles, clusterDir: string, options: InitOptions = {}): Promise<void> {
  const { sync = true } = options
  const parent = dirname(clusterDir)
  const prefix = '.initdb'
  try {
    makeFolder(parent)
    removeDeadScratch(parent, prefix)
    if (isCluster(clusterDir)) return
    options.onCreate?.()
    const scratch = join(parent, scratchName(prefix))
    try {
      mkdirSync(scratch, { mode: 0o700 })
      own(scratch, files.runAs)
      await runInitdb(files, scratch, clusterDir, sync)
      moveIntoPlace(scratch, clusterDir)
    } finally {
      rmSync(scratch, { recursive: true, force: true })
    }
  } catch (error) {
    throw fileError(error, 'creating the database in', clusterDir)
  }
}

/** The major version of the cluster must be that of the programs; there is no upgrade in place. */
export function requireVersion(clusterDir: string, major: number): void {
  const path = join(clusterDir, 'PG_VERSION')
  let version: string
  try {
    version = readFileSync(path, 'utf8').trim()
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return
    throw fileError(error, 'reading', path)
  }
  if (version === String(major)) return
  throw new EmbeddedPostgresError(
    'wrong_version',
    `${clusterDir} was written by PostgreSQL ${version}, the embedded server is PostgreSQL ${major}. Start with the ` +
      `askonce version that made it, or serve the folder with a PostgreSQL ${version} and set DATABASE_URL, or move it ` +
      'away to begin with an empty database',
  )
}

/** The password of a cluster made here. It lives inside the cluster, so the two can never come apart. */
export function readPassword(clusterDir: string): string {
  const path = passwordFile(clusterDir)
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (error) {
    throw fileError(error, 'reading the database password from', path)
  }
}

function passwordFile(clusterDir: string): string {
  return join(clusterDir, 'askonce.password')
}

function isCluster(clusterDir: string): boolean {
  const stat = lstatSync(clusterDir, { throwIfNoEntry: false })
  if (!stat || existsSync(join(clusterDir, 'PG_VERSION'))) return stat !== undefined
  if (stat.isDirectory() && readdirSync(clusterDir).length === 0) return false
  throw new EmbeddedPostgresError(
    'not_a_cluster',
    `${clusterDir} exists and is not a PostgreSQL data directory. Move it away or choose another folder with ASKONCE_DATA_DIR`,
  )
}

/** Makes a folder and those above it, private to this user. */
export function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
  } catch (error) {
    // Node says so of a read-only file system too; without `recursive` it tells the reason.
    if (errnoOf(error) === 'ENOENT') mkdirSync(path)
    throw error
  }
}

function own(path: string, runAs: RunAs): void {
  const { uid, gid } = runAs.ids
  if (uid !== undefined && gid !== undefined) chownSync(path, uid, gid)
}

async function runInitdb(files: ServerFiles, dir: string, clusterDir: string, sync: boolean): Promise<void> {
  const password = randomBytes(24).toString('base64url')
  // initdb wants an empty folder and a file with the password. The file is passed as an open descriptor, already
  // unlinked: the server's user may be unable to reach any path here, and a kill leaves no password lying around.
  const path = `${dir}.password`
  writeFileSync(path, `${password}\n`, { mode: 0o600 })
  own(path, files.runAs)
  const fd = openSync(path, 'r')
  unlinkSync(path)
  try {
    const args = ['-D', dataArgument(dir, files), '-U', USER, '--pwfile=/dev/fd/3', '--auth=scram-sha-256']
    const layout = ['--encoding=UTF8', '--locale=C', '--data-checksums', ...(sync ? [] : ['--no-sync'])]
    // Not detached: a Ctrl-C during the first start should end it, and there is nothing yet to lose.
    const child = spawn(files.initdb, [...args, ...layout], {
      ...files.runAs.ids,
      cwd: dir,
      env: { LC_ALL: 'C', PATH: '/usr/bin:/bin' },
      stdio: ['ignore', 'pipe', 'pipe', fd],
    })
    let output = ''
    child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString()))
    child.stderr?.on('data', (chunk: Buffer) => (output += chunk.toString()))
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code) =>
        code === 0 ? resolve() : reject(outputError(output, 'creating the database in', clusterDir)),
      )
    })
  } finally {
    closeSync(fd)
  }
  writeFileSync(passwordFile(dir), `${password}\n`, { mode: 0o600, flush: sync })
  own(passwordFile(dir), files.runAs)
}

function moveIntoPlace(scratch: string, clusterDir: string): void {
  flushFolder(scratch)
  try {
    renameSync(scratch, clusterDir)
  } catch (error) {
    // Another process was faster; its cluster is the one.
    if (!['ENOTEMPTY', 'EEXIST'].includes(errnoOf(error) ?? '')) throw error
  }
  flushFolder(dirname(clusterDir))
}

function flushFolder(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
