import { createThreads } from '@askonce/threads'
import { afterAll, expect, it } from 'vitest'

const threads = createThreads<{ text: string; bytes?: ArrayBuffer; hold?: number }, string>({
  beside: import.meta.url,
  module: 'threads-echo-thread',
  maxThreads: 2,
  maxHeapMb: 64,
})
afterAll(() => threads.close())

it('runs a module of TypeScript in a thread, and takes over what is transferred', async () => {
  const bytes = new ArrayBuffer(1000)
  expect(await threads.run({ text: 'hello', bytes }, [bytes])).toBe('hello 1000')
  expect(bytes.byteLength).toBe(0)
})

it('rejects with what the task throws', async () => {
  await expect(threads.run({ text: 'throw' })).rejects.toThrow('as asked')
})

it('rejects the task whose thread dies of its heap, and runs the next one', async () => {
  await expect(threads.run({ text: 'hold', hold: 1_000_000 })).rejects.toThrow(/memory/)
  expect(await threads.run({ text: 'after' })).toBe('after 0')
})
