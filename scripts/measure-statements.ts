import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  claimJobs,
  endAttempts,
  migrate,
  notify,
  openDatabase,
  readJobs,
  registerWorker,
  settledChannel,
  submitBatch,
  type AttemptEndRecord,
  type NewJob,
} from '@askonce/store'
import { startTestPostgres } from '@askonce/testkit'

/**
 * What the statements of one job take, one job after the other, at the pace of 20 a second and as fast as they go; with commits that wait for
 * the disk, as always, and without, which tells how much of it is the disk's. Milliseconds, medians of 200.
 */
const jobs = 200

const server = await startTestPostgres({ fsync: true })
const database = await server.createDatabase()
await migrate(database.url)
const { db, close } = openDatabase({ url: database.url, name: 'measure statements', poolSize: 1 })

function newJob(id: string): NewJob {
  return {
    id,
    tenantId: 'default',
    key: id,
    fingerprint: createHash('sha256').update(id).digest(),
    bodyDigest: null,
    operation: 'chat.completions',
    model: 'simulated/small',
    lane: 'simulated',
    request: Buffer.from(`{"model":"small","messages":[{"role":"user","content":"${'x'.repeat(200)}"}]}`),
    requestHeaders: null,
    streamed: false,
    ownerBatch: null,
    metadata: null,
    priority: 5,
    timeoutMs: 600_000,
    ttlSeconds: 172_800,
    deadlineSeconds: 604_800,
    onUncertain: 'rerun',
    maxAttempts: 5,
    maxPaidAttempts: 2,
    runAt: null,
    delaySeconds: 0,
    reserveUsd: null,
    reserveTokens: null,
  }
}

function answer(jobId: string): AttemptEndRecord {
  return {
    jobId,
    attempt: 1,
    action: 'answer',
    outcome: 'answered',
    billing: 'billed',
    uncounted: false,
    onlyOpen: false,
    delayMs: 0,
    backoff: false,
    error: null,
    errorCode: null,
    providerStatus: 200,
    providerRequestId: 'req_1',
    inputTokens: 50,
    outputTokens: 64,
    costUsd: 0.0001,
    response: Buffer.from(`{"text":"${'y'.repeat(600)}"}`),
    responsePieces: null,
    responseBytes: null,
    contentType: 'application/json',
    answerId: null,
    errorResponse: null,
    errorContentType: null,
    flags: [],
  }
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
}

async function measure(pauseMs: number, waits: 'on' | 'off'): Promise<Map<string, number>> {
  await db
    .selectNoFrom(({ fn, val }) => fn('set_config', [val('synchronous_commit'), val(waits), val(false)]).as('waits'))
    .execute()
  const worker = randomUUID()
  await registerWorker(db, { id: worker, host: 'here', pid: process.pid, version: '0' })
  const times = new Map<string, number[]>()
  const time = async (name: string, run: () => Promise<unknown>): Promise<void> => {
    const startedAt = performance.now()
    await run()
    times.set(name, [...(times.get(name) ?? []), performance.now() - startedAt])
  }
  for (let index = 0; index < jobs; index += 1) {
    const id = randomUUID()
    await time('submitted', () => submitBatch(db, [newJob(id)]))
    await time('claimed', () =>
      claimJobs(db, {
        workerId: worker,
        number: index,
        lane: 'simulated',
        places: 1,
        turn: { tenant: '', credit: 0 },
        agedFirst: false,
        known: [],
      }),
    )
    await time('answer stored', () => endAttempts(db, [answer(id)], 86_400))
    await time('told', () => notify(db, settledChannel, [id]))
    await time('answer read', () => readJobs(db, [{ tenantId: 'default', id }]))
    await time('nothing at all', () => db.selectNoFrom(({ val }) => val(1).as('one')).execute())
    await sleep(pauseMs)
  }
  return new Map([...times].map(([name, values]) => [name, median(values)]))
}

const columns: [title: string, found: Map<string, number>][] = []
for (const [pace, pauseMs] of [
  ['20 a second', 45],
  ['at once', 0],
] as const) {
  for (const waits of ['on', 'off'] as const) {
    const title = `${pace}${waits === 'on' ? '' : ', disk not awaited'}`
    columns.push([title, await measure(pauseMs, waits)])
  }
}
console.log(`| ms | ${columns.map(([title]) => title).join(' | ')} |\n|---|${columns.map(() => '---|').join('')}`)
for (const name of columns[0]?.[1].keys() ?? []) {
  console.log(`| ${name} | ${columns.map(([, found]) => (found.get(name) ?? Number.NaN).toFixed(2)).join(' | ')} |`)
}
await close()
await server.stop()
