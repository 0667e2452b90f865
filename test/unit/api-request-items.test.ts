import { loadConfig } from '@askonce/config'
import { Intake } from '@askonce/intake'
import { describe, expect, it } from 'vitest'
import { itemsOf, type ItemLimits } from '../../apps/api/src/sdk/batches/request-items.ts'

const limits: ItemLimits = {
  intake: new Intake(loadConfig({}), () => ({ reserveUsd: null, reserveTokens: null })),
  keyPrefix: 'prefix',
  maxParamsBytes: 1_000_000,
  maxRequests: 3,
  maxBodyBytes: 2_000_000,
}

const item = (customId: string, content = 'hello') => ({
  custom_id: customId,
  params: { model: 'simulated/small', max_tokens: 9, messages: [{ role: 'user', content }] },
})
const bodyOf = (...items: object[]): string => JSON.stringify({ requests: items })

/** The items of a body that comes in pieces of so many bytes. */
async function read(body: string, given: Partial<ItemLimits> = {}, pieceBytes = 100_000): Promise<string[]> {
  const bytes = Buffer.from(body)
  async function* pieces(): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.length; at += pieceBytes) yield Buffer.from(bytes.subarray(at, at + pieceBytes))
  }
  const found: string[] = []
  for await (const items of itemsOf(pieces(), { ...limits, ...given })) found.push(...items.map(String))
  return found
}

const invalid = (param: string, message: RegExp) => ({
  code: 'invalid_request',
  message: expect.stringMatching(message) as unknown,
  extras: { param },
})

describe('the items of a message batch', () => {
  it('are as many as allowed; the next one is named', async () => {
    const items = ['a', 'b', 'c'].map((customId) => item(customId))
    expect(await read(bodyOf(...items))).toEqual(items.map((one) => JSON.stringify(one)))
    await expect(read(bodyOf(...items, item('d')))).rejects.toMatchObject(invalid('/requests/3', /at most 3 requests/))
  })

  it('have as many bytes together as allowed', async () => {
    const body = bodyOf(item('a'))
    const { length } = Buffer.from(body)
    expect(await read(body, { maxBodyBytes: length })).toHaveLength(1)
    await expect(read(body, { maxBodyBytes: length - 1 })).rejects.toMatchObject({
      code: 'payload_too_large',
      extras: { param: '' },
    })
  })

  it('are each as large as allowed; a larger one is refused before it has come whole', async () => {
    const open = bodyOf(item('a'), item('b', 'x'.repeat(200_000))).slice(0, -10)
    await expect(read(open, { maxParamsBytes: 100_000 })).rejects.toMatchObject({
      code: 'payload_too_large',
      extras: { param: '/requests/1' },
    })
  })

  it('are on one line each, however the body is written', async () => {
    const items = [item('a', 'one\ntwo'), item('b')]
    for (const pieceBytes of [1, 7, 100_000]) {
      const found = await read(JSON.stringify({ requests: items }, null, 2).replaceAll('\n', '\r\n'), {}, pieceBytes)
      expect(found.map((text) => JSON.parse(text) as unknown)).toEqual(items)
      expect(found.join('')).not.toMatch(/[\r\n]/)
    }
  })

  it.each(['\n', '\r', '\r\n', '\\\n'])('a bare line break in a text is no JSON: %j', async (bare) => {
    const body = bodyOf(item('a'), item('b', 'one?two')).replace('?', bare)
    for (const pieceBytes of [1, 100_000]) {
      await expect(read(body, {}, pieceBytes)).rejects.toMatchObject(invalid('/requests/1', /line break in a text/))
    }
  })
})
