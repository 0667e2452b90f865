import { noLimits } from '@askonce/core'
import { submitBatch, type Db, type NewJob, type SubmitResult } from '@askonce/store'
import { createMetrics, type Log } from '@askonce/telemetry'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Submissions } from '../../apps/api/src/submissions.ts'

vi.mock('@askonce/store', async (original) => ({
  ...(await original<object>()),
  submitBatch: vi.fn<typeof submitBatch>(),
}))

const log: Log = { event: () => undefined, child: () => log }
const job = { id: 'job-1', request: Buffer.from('{}') } as unknown as NewJob
const created = {
  kind: 'created',
  job: { id: 'job-1', lane: 'openai' },
} as unknown as SubmitResult
const broken = (): Error => Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' })

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] })
  vi.mocked(submitBatch).mockReset()
})
afterEach(() => {
  vi.useRealTimers()
})

function submitted() {
  const wake = vi.fn<(lanes: readonly string[]) => void>()
  const submissions = new Submissions({ db: {} as Db, log, metrics: createMetrics(), maxWaiting: 10, wake })
  return { result: submissions.submit(job, noLimits), wake, submissions }
}

// DESIGN.md §1.5: a short restart of Postgres is not the business of who submits. Not covered: that the statement, sent twice, makes
// one job; test/integration/store/submit.test.ts does.
describe('a batch that meets a broken connection', () => {
  test('is sent again as it was, and its lane is woken once', async () => {
    vi.mocked(submitBatch).mockRejectedValueOnce(broken()).mockRejectedValueOnce(broken()).mockResolvedValue([created])
    const { result, wake } = submitted()
    expect(await result).toBe(created)
    expect(vi.mocked(submitBatch).mock.calls.map(([, jobs]) => jobs)).toEqual([[job], [job], [job]])
    expect(wake.mock.calls).toEqual([[['openai']]])
  })

  test('is given up after two seconds: the outcome is unknown, and nobody is woken', async () => {
    vi.mocked(submitBatch).mockImplementation(() => {
      vi.advanceTimersByTime(1_100)
      return Promise.reject(broken())
    })
    const { result, wake } = submitted()
    await expect(result).rejects.toThrow('ECONNRESET')
    expect(submitBatch).toHaveBeenCalledTimes(2)
    expect(wake).not.toHaveBeenCalled()
  })

  test('speaks for the next ones for five seconds, or until one is stored', async () => {
    vi.mocked(submitBatch).mockImplementation(() => {
      vi.advanceTimersByTime(2_100)
      return Promise.reject(broken())
    })
    const { result, submissions } = submitted()
    await expect(result).rejects.toThrow('ECONNRESET')
    expect(submissions.trouble).toMatchObject({ code: 'ECONNRESET' })
    vi.advanceTimersByTime(4_900)
    expect(submissions.trouble).not.toBeNull()
    vi.advanceTimersByTime(200)
    expect(submissions.trouble).toBeNull()

    await expect(submissions.submit(job, noLimits)).rejects.toThrow('ECONNRESET')
    vi.mocked(submitBatch).mockResolvedValue([created])
    await submissions.submit(job, noLimits)
    expect(submissions.trouble).toBeNull()
  })

  test('is not sent again when it is the statement that is refused', async () => {
    vi.mocked(submitBatch).mockRejectedValue(Object.assign(new Error('bad value'), { code: '22P02' }))
    await expect(submitted().result).rejects.toThrow('bad value')
    expect(submitBatch).toHaveBeenCalledOnce()
  })
})
