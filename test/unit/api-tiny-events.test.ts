import { setImmediate as nextTurn } from 'node:timers/promises'
import type { StreamCursor, StreamPage } from '@askonce/store'
import { describe, expect, it } from 'vitest'
import type { Parts } from '../../apps/api/src/context.ts'
import { withId } from '../../apps/api/src/sdk/event-ids.ts'
import { follow, type Following } from '../../apps/api/src/sdk/follow.ts'
import { responseInStream } from '../../apps/api/src/sdk/response-object.ts'

type JobRow = Following['job']

const row = { id: 'job', tenant_id: 'default', state: 'succeeded', error: null } as unknown as JobRow
const pageBytes = 256 * 1024

/** A stored stream, in pages as the database gives them. */
function partsOf(stream: Buffer): { parts: Parts; pages: () => number } {
  let pages = 0
  const page = ({ position }: StreamCursor): Promise<StreamPage> => {
    pages += 1
    return Promise.resolve({
      state: 'succeeded',
      attempt: 1,
      bytes: stream.subarray(position, position + pageBytes),
      length: stream.length,
      contentType: 'text/event-stream',
    })
  }
  const streams = { closed: false, wait: () => Promise.resolve(), read: page }
  return { parts: { streams } as unknown as Parts, pages: () => pages }
}

const following = (given: Partial<Following> = {}): Following => ({
  job: row,
  after: null,
  limitMs: Number.POSITIVE_INFINITY,
  isGone: () => false,
  show: (event, id) => withId(event, id, 'chat.completions'),
  showProblem: (problem) => Buffer.from(`problem: ${problem.code}`),
  ...given,
})

/** How often others got the processor while `work` ran. */
async function turnsDuring(work: () => Promise<unknown>): Promise<number> {
  const running = { ends: false }
  let turns = 0
  const counting = (async () => {
    for (; !running.ends; turns += 1) await nextTurn()
  })()
  await work()
  running.ends = true
  await counting
  return turns
}

async function read(parts: Parts, given: Partial<Following> = {}): Promise<string> {
  const pieces: Buffer[] = []
  for await (const piece of follow(parts, following(given))) pieces.push(piece)
  return Buffer.concat(pieces).toString()
}

// DESIGN.md §7: no request holds the event loop for more than 50 ms, whatever its size or shape.
describe('a stream of tiny events', () => {
  it.each(['\n', ':a\n\n', 'data:\n\n', 'data: {}\n\n'])('%j leaves others their turns', async (event) => {
    const last = 'data: {"a":1}\n\ndata: [DONE]\n\n'
    const stream = Buffer.from(event.repeat(Math.ceil(pageBytes / event.length)) + last)
    let text = ''
    const turns = await turnsDuring(async () => {
      text = await read(partsOf(stream).parts)
    })
    expect(text).toMatch(/id: 1-\d+\ndata: \{"a":1\}\n\nid: 1-\d+\ndata: \[DONE\]\n\n$/)
    expect(turns).toBeGreaterThan(25)
  })

  it('is read no further when its client has gone, although nothing of it was sent', async () => {
    const { parts, pages } = partsOf(Buffer.from('data: {}\n\n'.repeat(300_000)))
    const after = { attempt: 1, index: 999_999_999 }
    expect(await read(parts, { after, isGone: () => pages() >= 2 })).toBe('')
    expect(pages()).toBe(2)
  })

  it('with one that is outsized among them passes that on as it comes, behind its id', async () => {
    const outsized = `data: {"b":"${'x'.repeat(20 * 1024 * 1024)}"}\n\n`
    const stream = Buffer.from(`data: {"a":1}\n\n${outsized}data: [DONE]\n\n`)
    const sent: Buffer[] = []
    for await (const piece of follow(partsOf(stream).parts, following({ passesLarge: true }))) sent.push(piece)
    const expected = `id: 1-0\ndata: {"a":1}\n\nid: 1-1\n${outsized}id: 1-2\ndata: [DONE]\n\n`
    expect(Buffer.concat(sent).equals(Buffer.from(expected))).toBe(true)
    expect(Math.max(...sent.map(({ length }) => length))).toBeLessThan(2 * 1024 * 1024)
    // Whoever has had it does not get it again.
    const after = { attempt: 1, index: 1 }
    expect(await read(partsOf(stream).parts, { passesLarge: true, after })).toBe('id: 1-2\ndata: [DONE]\n\n')
  })

  it('gets a large one with its blank line, and one that says nothing not at all', async () => {
    const unended = `data: {"b":"${'x'.repeat(3 * 1024 * 1024)}"}`
    const given = { passesLarge: true }
    expect(await read(partsOf(Buffer.from(unended)).parts, given)).toBe(`id: 1-0\n${unended}\n\n`)
    const comment = `: ${'x'.repeat(3 * 1024 * 1024)}\n\n`
    expect(await read(partsOf(Buffer.from(`${comment}data: {}\n\n`)).parts, given)).toBe('id: 1-1\ndata: {}\n\n')
  })

  it('is looked through for its response in turns, too', async () => {
    const completed = 'event: response.completed\ndata: {"type":"response.completed","response":{"id": "resp_1"}}\n\n'
    const said = 'data: {"delta":"response.completed"}\n\n'
    const stream = Buffer.from('\n'.repeat(1024 * 1024) + said + completed + ':a\n\n'.repeat(256 * 1024) + said)
    let found: Buffer | null = null
    const turns = await turnsDuring(async () => {
      found = await responseInStream(stream)
    })
    expect(String(found)).toBe('{"id": "resp_1"}')
    expect(turns).toBeGreaterThan(100)
  })
})
