import { Piscina } from 'piscina'

export interface ThreadsOptions {
  /** `import.meta.url` of the module that asks. */
  beside: string
  /**
   * The module of the thread, a neighbour of that one, without its ending; its name ends in `-thread`. Its default export takes one task and
   * returns, or resolves with, one result.
   */
  module: string
  /** Tasks that run at the same time; the others wait in line. */
  maxThreads: number
  /** Heap of one thread, in MiB. Beyond it the thread dies, and its task rejects. */
  maxHeapMb: number
}

/** Threads that are started when there is something to do, and end after half a minute without it. */
export interface Threads<Task, Result> {
  /**
   * Runs the task in a thread. Both sides are copied, but for what `transfer` lists, which is gone here afterwards. Rejects with what the task throws
   * (the message, not the class), or when the thread dies of its heap.
   */
  run: (task: Task, transfer?: readonly ArrayBuffer[]) => Promise<Result>
  /** Ends the threads. Tasks under way reject. */
  close: () => Promise<void>
}

const idleMs = 30_000

/** For work that would hold up the event loop for longer than others should wait. */
export function createThreads<Task, Result>({
  beside,
  module,
  maxThreads,
  maxHeapMb,
}: ThreadsOptions): Threads<Task, Result> {
  // What bin/compiled.js makes of the sources has one file for each `-thread` module, beside all others.
  const isSource = new URL(beside).pathname.endsWith('.ts')
  const entry = new URL(`./${module}.${isSource ? 'ts' : 'js'}`, beside).href
  // Not in the types of Node 20, which does not have it.
  const runsTypeScript = Boolean((process.features as { typescript?: unknown }).typescript)
  const pool = new Piscina<Task, Result>({
    filename: isSource && !runsTypeScript ? new URL('./from-source.js', import.meta.url).href : entry,
    workerData: entry,
    minThreads: 0,
    maxThreads,
    idleTimeout: idleMs,
    resourceLimits: { maxOldGenerationSizeMb: maxHeapMb },
  })
  return {
    run: (task, transfer = []) => pool.run(task, { transferList: [...transfer] }),
    close: () => pool.destroy(),
  }
}
