import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** A program that comes after this one: the same sources with another version and one more migration. */
export interface NextVersion {
  /** Path of its `askonce`. */
  program: string
  version: string
  /** File name of its migration. */
  migration: string
  remove(): void
}

/** Makes the next version in a folder of its own, with the packages that are installed here. `sql`: its migration. */
export function makeNextVersion(sql: string): NextVersion {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'askonce-next-')))
  for (const name of ['apps', 'packages', 'migrations', 'package.json', 'tsconfig.json']) {
    cpSync(join(root, name), join(folder, name), { recursive: true })
  }
  // Links to the packages; its own ones by the relative links of the workspaces.
  const modules = join(folder, 'node_modules')
  mkdirSync(modules)
  for (const name of readdirSync(join(root, 'node_modules')).filter((entry) => !/^\.|^@askonce$/.test(entry))) {
    symlinkSync(join(root, 'node_modules', name), join(modules, name))
  }
  cpSync(join(root, 'node_modules/@askonce'), join(modules, '@askonce'), { recursive: true, verbatimSymlinks: true })

  const number = readdirSync(join(folder, 'migrations')).filter((name) => name.endsWith('.sql')).length + 1
  const migration = `${String(number).padStart(4, '0')}_next_version.sql`
  writeFileSync(join(folder, 'migrations', migration), sql)
  const version = '99.0.0'
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as object
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, version }))
  return {
    program: join(folder, 'apps/cli/bin/askonce.js'),
    version,
    migration,
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}
