import {
  chmodSync,
  closeSync,
  cpSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { EmbeddedPostgresError, errnoOf, fileError } from './errors.ts'
import { removeDeadScratch, scratchName } from './scratch.ts'

/**
 * Copies the `native` folder of a PostgreSQL package to `<place>/<name>/native` and returns that path; an existing copy
 * is used as it is. The copy appears whole or not at all, however many processes make it at once.
 *
 * With `forRoot`, every folder on the way in must belong to root and be writable by nobody else, or root would start
 * programs that somebody else put there.
 */
export function copyServer(native: string, place: string, name: string, forRoot: boolean): string {
  const target = join(place, name)
  try {
    mkdirSync(place, { recursive: true, mode: 0o755 })
    if (forRoot) requireRootOnly(place)
    if (!lstatSync(target, { throwIfNoEntry: false })) makeCopy(native, place, name)
    if (forRoot)
      for (const part of ['.', 'native', 'native/bin', 'native/bin/postgres']) requireRootOnly(join(target, part))
  } catch (error) {
    throw fileError(error, 'copying the embedded PostgreSQL to', target)
  }
  return join(target, 'native')
}

function makeCopy(native: string, place: string, name: string): void {
  removeDeadScratch(place, `.${name}`)
  const scratch = join(place, scratchName(`.${name}`))
  try {
    cpSync(native, join(scratch, 'native'), { recursive: true, verbatimSymlinks: true, filter: isNeeded })
    finish(scratch)
    renameSync(scratch, join(place, name))
  } catch (error) {
    // Another process was faster: its copy is as good.
    if (!['ENOTEMPTY', 'EEXIST'].includes(errnoOf(error) ?? '')) throw error
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

// Static libraries are for building extensions; without them the copy is what runs and nothing more.
function isNeeded(source: string): boolean {
  return !source.endsWith('.a')
}

// Modes: readable by the server's user and writable by the owner only, whatever umask npm ran under. Flushed to disk, or
// a power cut after the rename could leave a copy with holes that passes for complete for ever.
function finish(path: string): void {
  const stat = lstatSync(path)
  if (stat.isSymbolicLink()) return
  const program = basename(path) === 'postgres' || basename(path) === 'initdb'
  chmodSync(path, stat.isDirectory() || program || (stat.mode & 0o111) !== 0 ? 0o755 : 0o644)
  if (stat.isDirectory()) for (const name of readdirSync(path)) finish(join(path, name))
  const fd = openSync(path, 'r')
  fsyncSync(fd)
  closeSync(fd)
}

function requireRootOnly(path: string): void {
  const stat = lstatSync(path)
  if (!stat.isSymbolicLink() && stat.uid === 0 && (stat.mode & 0o022) === 0) return
  throw new EmbeddedPostgresError(
    'no_permission',
    `${path} must belong to root and be writable by root alone, since root starts programs from there. Remove it and start again`,
  )
}
