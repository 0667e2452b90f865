import type { Child } from '@askonce/testkit'
import { prepareAskonce, type Askonce } from './askonce.ts'
import { until, type Bench } from './bench.ts'
import { cleanLoad } from './load.ts'

export interface Succeeded {
  system: Askonce
  /** The API alone. */
  processes: readonly Child[]
  address: string
  /** Keys are `<prefix>-<n>`, n below `count`. */
  prefix: string
  count: number
  ids: readonly string[]
}

/** An Askonce in which `count` keys have their answers, and whose only process is an API. */
export async function startWithAnswers(bench: Bench, count: number): Promise<Succeeded> {
  const system = await prepareAskonce(bench, 'redis')
  try {
    const address = await system.api()
    const processes = [...system.processes()]
    const worker = await system.worker({ ASKONCE_SIMULATED_LATENCY_MS: '0' })
    const prefix = bench.fresh('answered')
    const request = { kind: 'submit', prefix } as const
    await cleanLoad(bench, address, { connections: 32, durationMs: 60_000, limit: count, request })
    await until(
      bench.signal,
      () => system.count('succeeded'),
      (done) => done === count,
      60_000,
    )
    worker.signal('SIGTERM')
    await worker.exited
    const rows = await system.sql<{ id: string }>('select id from jobs order by created_at limit 500')
    return { system, processes, address, prefix, count, ids: rows.map(({ id }) => id) }
  } catch (error) {
    await system.stop()
    throw error
  }
}
