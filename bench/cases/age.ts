import { prepareAskonce, type Askonce } from '../askonce.ts'
import type { Bench } from '../bench.ts'
import type { Case, Contender, Measured } from '../case.ts'
import { cleanLoad } from '../load.ts'
import { insertTerminalRows } from '../terminal-rows.ts'

const young = 10_000
const connections = 128
const aYear = 365 * 24 * 3_600

interface Aged {
  system: Askonce
  address: string
  prefix: string
  count: number
}

async function prepare(bench: Bench, count: number): Promise<Aged> {
  const system = await prepareAskonce(bench, 'redis')
  try {
    const prefix = bench.fresh('old')
    // The API makes the tenant.
    const address = await system.api()
    await insertTerminalRows(bench, system.databaseUrl, { prefix, count, expiresInSeconds: aYear })
    return { system, address, prefix, count }
  } catch (error) {
    await system.stop()
    throw error
  }
}

/** What follows the writing of gigabytes is the disk's: the first measurement of each table is not counted. */
function contender(bench: Bench, name: string, aged: Aged): Contender {
  let rested = false
  return {
    name,
    async measure() {
      if (!rested) await measure(bench, aged)
      rested = true
      return await measure(bench, aged)
    },
  }
}

async function measure(bench: Bench, { system, address, prefix, count }: Aged): Promise<Measured> {
  const times = { warmUpMs: 2_000, durationMs: bench.pick(8_000, 1_000) }
  const request = { kind: 'submit', prefix: bench.fresh('submit') } as const
  const submitted = await cleanLoad(bench, address, { connections, ...times, request })
  // As many as there were, so that every round meets the same number of rows.
  await system.sql(`delete from jobs where state = 'queued'`)
  await system.sql('vacuum jobs')
  const replay = async (keys: number): Promise<number> => {
    const known = { kind: 'replay', prefix, count: keys, every: Math.floor(count / keys) } as const
    return (await cleanLoad(bench, address, { connections, ...times, request: known })).perSecond
  }
  // The same number of keys, all over the table: what its depth costs. And each only once: what the disk costs.
  const replayed = await replay(Math.min(young, count))
  const once = await replay(count)
  const made = await system.count('queued')
  if (made > 0) throw new Error(`${made} keys were new that should have had their answers`)
  return { submit: submitted.perSecond, replay: replayed, 'replay of any': once, p99: submitted.p99 }
}

export const age: Case = {
  name: 'age',
  title: 'Submissions and replays a second with few and with many terminal rows in the table',
  figures: [
    { name: 'submit', unit: 'jobs/s' },
    { name: 'replay', unit: 'requests/s' },
    { name: 'replay of any', unit: 'requests/s' },
    { name: 'p99', unit: 'ms' },
  ],
  targets: ['submit', 'replay'].map((figure) => ({
    figure,
    of: 'many rows',
    against: 'few rows',
    bound: 'at least',
    factor: 0.9,
  })),
  // Filling ten million rows takes most of the time of a long run.
  rounds: 2,
  async open(bench) {
    const opened: Aged[] = []
    const close = async (): Promise<void> => {
      for (const { system } of opened) await system.stop()
    }
    try {
      const few = await prepare(bench, Math.min(young, bench.options.ageRows))
      opened.push(few)
      const many = await prepare(bench, bench.options.ageRows)
      opened.push(many)
      return { contenders: [contender(bench, 'few rows', few), contender(bench, 'many rows', many)], close }
    } catch (error) {
      await close()
      throw error
    }
  },
}
