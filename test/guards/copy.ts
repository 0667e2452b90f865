import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { problemOf, type Guard } from './guard.ts'

/** A copy of the checkout, to be broken. */
export interface Copy {
  root: string
  /** Breaks one guard, runs, and puts the file back whatever comes of it. Throws when the text is not there exactly once. */
  without<T>(guard: Guard, run: () => Promise<T>): Promise<T>
  remove(): void
}

/**
 * Copies what git knows, and new files that it does not ignore, as they are now, and the installed packages. The links of the
 * workspaces are relative, so the copy uses its own packages.
 */
export function copyCheckout(from: string): Copy {
  const root = realpathSync(mkdtempSync(join(tmpdir(), 'askonce-guards-')))
  const remove = (): void => rmSync(root, { recursive: true, force: true, maxRetries: 3 })
  try {
    const list = ['ls-files', '-z', '--cached', '--others', '--exclude-standard']
    const files = execFileSync('git', list, { cwd: from, encoding: 'utf8', maxBuffer: 2 ** 26 }).split('\0')
    for (const file of files.filter((name) => name !== '' && existsSync(join(from, name)))) {
      mkdirSync(dirname(join(root, file)), { recursive: true })
      cpSync(join(from, file), join(root, file), { verbatimSymlinks: true })
    }
    cpSync(join(from, 'node_modules'), join(root, 'node_modules'), { recursive: true, verbatimSymlinks: true })
  } catch (error) {
    remove()
    throw error
  }
  return {
    root,
    remove,
    async without(guard, run) {
      const path = join(root, guard.file)
      const source = readFileSync(path, 'utf8')
      const problem = problemOf(guard, source)
      if (problem !== null) throw new Error(problem)
      // As a function: a replacement text would give $ a meaning.
      writeFileSync(
        path,
        source.replace(guard.guarded, () => guard.broken),
      )
      try {
        return await run()
      } finally {
        writeFileSync(path, source)
      }
    },
  }
}
