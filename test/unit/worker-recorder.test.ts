import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { endAttempts, type AttemptEndRecord, type Db, type EndedAttempt } from '@askonce/store'
import { createMetrics, type Log } from '@askonce/telemetry'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { AnswerInHand } from '../../apps/worker/src/answer-in-hand.ts'
import { BackPressure } from '../../apps/worker/src/back-pressure.ts'
import { Recorder } from '../../apps/worker/src/recorder.ts'
import { Safekeeping } from '../../apps/worker/src/safekeeping.ts'
import { Spool } from '../../apps/worker/src/spool.ts'

vi.mock('@askonce/store', async (original) => ({
  ...(await original<object>()),
  endAttempts: vi.fn<typeof endAttempts>(),
  notify: () => Promise.resolve(),
}))

const jobId = '0199c0de-0000-7000-8000-000000000001'
const log: Log = { event: () => undefined, child: () => log }
const ended = { jobId, attempt: 1, recorded: true, movedTo: 'succeeded', state: 'succeeded', answerAttempt: 1 }
const end: AttemptEndRecord = {
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
  providerRequestId: null,
  inputTokens: 3,
  outputTokens: 5,
  costUsd: null,
  response: Buffer.from('{"paid":true}'),
  responsePieces: null,
  responseBytes: null,
  contentType: 'application/json',
  flags: [],
  answerId: null,
  errorResponse: null,
  errorContentType: null,
}

let directory: string
let spool: Spool
let recorder: Recorder
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'askonce-recorder-'))
  spool = new Spool(directory)
  const metrics = createMetrics()
  const backPressure = new BackPressure(log, metrics, () => undefined)
  const databaseId = (): Promise<string> => Promise.resolve('db-1')
  const safekeeping = new Safekeeping({ spool, log, metrics, backPressure, databaseId })
  recorder = new Recorder({ db: {} as Db, log, metrics, safekeeping, uncertainTtlMs: 1_000 })
  vi.mocked(endAttempts).mockReset()
})
afterEach(() => rm(directory, { recursive: true, force: true }))

// DESIGN.md §1.3: an answer in the spool was paid, and a process may die at any moment. Until the commit the file is the only copy that
// survives that. Not covered: that the file is on the disk when the machine loses its power.
describe('the file of an answer', () => {
  const leftBehind = async (): Promise<AnswerInHand> =>
    new AnswerInHand('acme', end, await spool.write({ database: 'db-1', tenant: 'acme', end }))

  test('is there while the commit is under way, and gone after it', async () => {
    const answer = await leftBehind()
    const present: boolean[] = []
    vi.mocked(endAttempts).mockImplementation(() => {
      present.push(existsSync(answer.file ?? ''))
      return Promise.resolve([ended as EndedAttempt])
    })
    expect(await recorder.recordAnswer(answer)).toMatchObject({ committed: true })
    expect(present).toEqual([true])
    expect(await readdir(directory)).toEqual([])
  })

  test('is there after a commit without a reply, and at the next attempt', async () => {
    const answer = await leftBehind()
    const present: boolean[] = []
    const look = (): unknown => present.push(existsSync(answer.file ?? ''))
    vi.mocked(endAttempts)
      .mockImplementationOnce(() => {
        look()
        return Promise.reject(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }))
      })
      .mockImplementationOnce(() => {
        look()
        return Promise.resolve([ended as EndedAttempt])
      })
    expect(await recorder.recordAnswer(answer)).toMatchObject({ committed: true })
    expect(present).toEqual([true, true])
    expect(await readdir(directory)).toEqual([])
  })

  test('stays where the process stops before the database has the answer', async () => {
    const answer = await leftBehind()
    vi.mocked(endAttempts).mockImplementation(() => {
      recorder.stop()
      return Promise.reject(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }))
    })
    expect(await recorder.recordAnswer(answer)).toMatchObject({ committed: false })
    expect((await spool.read(answer.file ?? '')).end.response).toEqual(end.response)
  })
})
