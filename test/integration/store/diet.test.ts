import { claimJobs, endAttempts, submitBatch } from '@askonce/store'
import { beforeAll, describe, expect, it } from 'vitest'
import { addWorker, ending, newJob, uncertainTtlSeconds, useStore } from './fixture.ts'

const store = useStore({ poolSize: 1 })

/** Jobs that share a statement, and how many such groups there are. */
const group = 100
const groups = 12

const asked = Buffer.from(`{"model":"small","messages":[{"role":"user","content":"${'x'.repeat(200)}"}]}`)
const said = Buffer.from(`{"text":"${'y'.repeat(600)}"}`)

async function walBytes(): Promise<number> {
  const [row] = await store.query<{ bytes: number }>(`select (pg_current_wal_lsn() - '0/0')::float8 as bytes`)
  return row?.bytes ?? Number.NaN
}

interface Updates {
  all: number
  hot: number
}

async function updates(table: string): Promise<Updates> {
  await store.ownQuery('select pg_stat_force_next_flush()')
  const [row] = await store.query<Updates>(
    'select n_tup_upd::int as "all", n_tup_hot_upd::int as hot from pg_stat_user_tables where relname = $1',
    [table],
  )
  return row ?? { all: 0, hot: 0 }
}

/**
 * Promise: what a claim and an end write is little, whatever the prompt and the answer are, and they touch no index of `jobs` and of the ledger.
 * Guards: the tables and indexes of 0001_init.sql. What each part is for: docs/decisions/0004.
 */
describe('what a job writes', () => {
  const wal: Record<string, number> = {}
  const changed: Record<string, Updates> = {}

  beforeAll(async () => {
    const { db } = store
    const worker = await addWorker(store)
    const batches = Array.from({ length: groups }, (_, batch) =>
      Array.from({ length: group }, (_one, index) => newJob(`${batch}-${index}`, { request: asked })),
    )
    // Images of whole pages are written once after a checkpoint: how many are the job's depends on how often there is one.
    await store.query('alter system set full_page_writes = off')
    await store.query('select pg_reload_conf()')
    await store.query('checkpoint')
    const counted = async (name: string, run: () => Promise<unknown>): Promise<void> => {
      const before = await walBytes()
      await run()
      wal[name] = ((await walBytes()) - before) / (group * groups)
    }
    await counted('submit', async () => {
      for (const jobs of batches) await submitBatch(db, jobs)
    })
    await counted('claim', async () => {
      for (let number = 1; number <= groups; number += 1) {
        const turn = { tenant: '', credit: 0 }
        const request = {
          workerId: worker,
          number,
          lane: 'simulated',
          places: group,
          turn,
          agedFirst: false,
          known: [],
        }
        expect((await claimJobs(db, request)).claims).toHaveLength(group)
      }
    })
    await counted('end', async () => {
      for (const jobs of batches) {
        const ends = jobs.map(({ id }) => ending(id, 'answer', { response: said }))
        await endAttempts(db, ends, uncertainTtlSeconds)
      }
    })
    for (const table of ['jobs', 'attempts']) changed[table] = await updates(table)
  }, 60_000)

  it('is at most 3.3 kB of WAL from submission to answer, beside the bytes of request and answer', () => {
    const sum = Object.values(wal).reduce((total, bytes) => total + bytes, 0)
    expect(sum - asked.length - said.length).toBeLessThan(3_300)
  })

  it('leaves the indexes of jobs and of the ledger alone, nine times of ten at least', () => {
    expect(changed).toMatchObject({ jobs: { all: 2 * group * groups }, attempts: { all: group * groups } })
    expect((changed['jobs'] as Updates).hot).toBeGreaterThan(0.9 * 2 * group * groups)
    expect((changed['attempts'] as Updates).hot).toBeGreaterThan(0.9 * group * groups)
  })
})
