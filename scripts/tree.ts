import { readdirSync } from 'node:fs'
import { join } from 'node:path'

/** Folders that hold nothing of ours: installed, built, or written by a running server. */
const FOREIGN = new Set(['node_modules', 'dist', 'coverage', '.git', '.askonce'])

/**
 * Paths (relative to `root`, with forward slashes, sorted) of all files below it whose name ends in one of `endings`.
 * This walk is what the gates compare a tool's own count with: a tool that silently skips a folder fails.
 */
export function filesBelow(root: string, endings: readonly string[], folder = ''): string[] {
  const entries = readdirSync(join(root, folder), { withFileTypes: true }).filter(({ name }) => !FOREIGN.has(name))
  return entries
    .flatMap((entry) => {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`
      if (entry.isDirectory()) return filesBelow(root, endings, path)
      return entry.isFile() && endings.some((ending) => path.endsWith(ending)) ? [path] : []
    })
    .toSorted()
}

/** What a gate found out: how much it looked at, how much there was, and what is wrong, ready to print. */
export type GateResult = { looked: number; there: number; problems: string[] }
