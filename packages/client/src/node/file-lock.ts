import { randomUUID } from 'node:crypto'
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'

/** Who holds a file: a process, told from a later one with the same number by when it started, where that can be known. */
interface Holder {
  pid: number
  started: string | null
}

/** On Linux the boot and the start of the process in ticks since then; elsewhere null. */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name, in brackets, may hold anything; the start is the 20th field after it.
    const ticks = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}/${ticks}`
  } catch {
    return null
  }
}

function isAlive({ pid, started }: Holder): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false
  }
  const now = startOf(pid)
  return started === null || now === null || started === now
}

function readHolder(path: string): { text: string; holder: Holder | null } {
  const text = readFileSync(path, 'utf8')
  try {
    const holder = JSON.parse(text) as Partial<Holder> | null
    return typeof holder?.pid === 'number' ? { text, holder: holder as Holder } : { text, holder: null }
  } catch {
    return { text, holder: null }
  }
}

/** How often a lock that is being taken over by others is looked at again. */
const maxRounds = 5

/**
 * Takes the lock file for this process; one that a dead process left is taken over. Processes of other machines, or of other
 * containers, are not seen.
 * @returns releases it
 * @throws Error when a living process has it
 */
export function lockFile(path: string): () => void {
  const own = `${path}.${randomUUID()}`
  const text = JSON.stringify({ pid: process.pid, started: startOf(process.pid) } satisfies Holder)
  writeFileSync(own, text, { mode: 0o600 })
  try {
    for (let round = 0; round < maxRounds; round += 1) {
      if (tryLink(own, path)) return () => release(path, text)
      takeOver(path)
    }
  } finally {
    rmSync(own, { force: true })
  }
  throw new Error(`${path} changes hands all the time`)
}

/** A link appears with its whole content, or not at all. */
function tryLink(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Removes the lock of a dead process; does nothing when it is gone already. */
function takeOver(path: string): void {
  const aside = `${path}.${randomUUID()}`
  try {
    const { text, holder } = readHolder(path)
    if (holder !== null && isAlive(holder)) {
      throw new Error(`process ${holder.pid} has this store open (${path}): one process per file`)
    }
    // Of several that take over only one gets the file, and it looks whether it is still the one that was judged.
    renameSync(path, aside)
    if (readFileSync(aside, 'utf8') !== text) tryLink(aside, path)
    rmSync(aside)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

function release(path: string, text: string): void {
  try {
    if (readFileSync(path, 'utf8') === text) rmSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}
