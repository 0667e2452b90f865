import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { ownProcess, processStart } from './process.ts'

let made = 0

/**
 * Names for half-made folders that are renamed when complete: `<prefix>.<pid>.<start>.<n>`. The name says whose they are, so
 * what a killed process left can be told from what a live one is making.
 */
export function scratchName(prefix: string): string {
  const own = ownProcess()
  made += 1
  return `${prefix}.${own.pid}.${tag(own.start)}.${made}`
}

/** Removes the half-made folders of dead processes in `dir`. Best effort: one that cannot be removed waits for the next start. */
export function removeDeadScratch(dir: string, prefix: string): void {
  for (const name of readdirSync(dir)) {
    const match = name.startsWith(`${prefix}.`)
      ? /^(\d+)\.([\w-]+)\.\d+(?:\.password)?$/.exec(name.slice(prefix.length + 1))
      : null
    if (!match) continue
    const start = processStart(Number(match[1]))
    if (start !== undefined && tag(start) === match[2]) continue
    try {
      rmSync(join(dir, name), { recursive: true, force: true, maxRetries: 3 })
    } catch {
      // An initdb that outlived its parent for a moment may still be writing there; it ends at its next output.
    }
  }
}

function tag(start: string): string {
  return start.replaceAll(/[^\w]/g, '-')
}
