import { readdir, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/** Where this process writes the ordered file before it takes the name of the target. */
export function temporaryName(target: string): string {
  return join(dirname(target), `${prefixOf(target)}${process.pid}.tmp`)
}

/** Removes such files of runs that were killed in that moment. */
export async function removeLeftovers(target: string): Promise<void> {
  const prefix = prefixOf(target)
  const names = await readdir(dirname(target)).catch(() => [])
  for (const name of names.filter((candidate) => candidate.startsWith(prefix))) {
    const pid = /^(\d+)\.tmp$/.exec(name.slice(prefix.length))?.[1]
    if (pid !== undefined && !isRunning(Number(pid))) await rm(join(dirname(target), name), { force: true })
  }
}

function prefixOf(target: string): string {
  return `.${basename(target)}.`
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
