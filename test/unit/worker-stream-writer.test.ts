import { appendStreamChunks, type Claim, type Db } from '@askonce/store'
import { createMetrics, type Log } from '@askonce/telemetry'
import { beforeEach, expect, it, vi } from 'vitest'
import { StreamWriter } from '../../apps/worker/src/stream-writer.ts'

vi.mock('@askonce/store', async (original) => ({
  ...(await original<object>()),
  appendStreamChunks: vi.fn<typeof appendStreamChunks>(),
  deleteStreamChunks: () => Promise.resolve(),
}))

const append = vi.mocked(appendStreamChunks)
const said: string[] = []
const log: Log = { event: (name) => void said.push(name), child: () => log }
const claim = (id: string) => ({ id, attempt: 1, operation: 'chat.completions' }) as Claim
const sent = (): string[] => append.mock.calls.map(([, chunks]) => chunks.map(({ body }) => String(body)).join('|'))

beforeEach(() => {
  append.mockReset()
  said.length = 0
})

it('a statement that Postgres refuses is not repeated: other streams go on, and the gap stays a gap', async () => {
  append.mockRejectedValueOnce(Object.assign(new Error('out of range'), { code: '22003' }))
  const writer = new StreamWriter({} as Db, log, createMetrics())
  writer.begin(claim('bad')).onEvents(Buffer.from('one'))
  await expect.poll(() => said).toEqual(['loop.failed'])
  writer.begin(claim('good')).onEvents(Buffer.from('two'))
  await expect.poll(sent).toEqual(['one', 'two'])
  await writer.stop()
})

it('while Postgres is away the same pieces are sent again, unchanged, and what came meanwhile goes after them', async () => {
  append.mockRejectedValueOnce(Object.assign(new Error('away'), { code: 'ECONNREFUSED' }))
  const writer = new StreamWriter({} as Db, log, createMetrics())
  const stream = writer.begin(claim('job'))
  stream.onEvents(Buffer.from('one'))
  await expect.poll(sent).toEqual(['one'])
  stream.onEvents(Buffer.from('two'))
  await expect.poll(sent).toEqual(['one', 'one', 'two'])
  expect(append.mock.lastCall?.[1]).toMatchObject([{ position: 3 }])
  expect(said).toEqual([])
  await writer.stop()
})
