import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, startSystem, submit, type Form, type System } from '../../fault/system.ts'

const operations = [
  { operation: 'chat.completions', request: { model: 'gpt-test', messages: [{ role: 'user', content: 'hello' }] } },
  { operation: 'responses', request: { model: 'gpt-test', input: 'hello' } },
  { operation: 'embeddings', request: { model: 'text-embedding-test', input: 'hello' } },
  {
    operation: 'messages',
    request: { model: 'claude-test', max_tokens: 20, messages: [{ role: 'user', content: 'hello' }] },
  },
] as const

describe.each<Form>(['redis', 'embedded'])('every operation, from submission to stored bytes (%s form)', (form) => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem(form)
    address = (await system.api()).address
    await Promise.all([system.started('worker'), system.started('janitor')])
  })
  afterAll(() => system.stop())

  const stored = async (id: string): Promise<{ bytes: string; status: string | null; type: string | null }> => {
    const response = await fetch(`${address}/v1/jobs/${id}/response`, {
      headers: { authorization: `Bearer ${apiKey}` },
    })
    return {
      bytes: await response.text(),
      status: response.headers.get('x-provider-status'),
      type: response.headers.get('content-type'),
    }
  }

  test.each(operations)(
    '$operation: the provider’s bytes, exactly, as often as one asks',
    async ({ operation, request }) => {
      // Spacing, number spelling and member order of this answer survive only if nobody writes it again.
      const body = JSON.stringify(answers[operation], null, 1).replace('"x":1', '"x":1.50e0')
      await system.upstream.script([{ kind: 'answer', body, match: { model: request.model } }])
      const first = await submit(address, operation, { operation, request }, 30)
      expect([first.status, first.body.state]).toEqual([200, 'succeeded'])
      expect(await stored(first.body.id)).toEqual({ bytes: body, status: '200', type: 'application/json' })
      const again = await submit(address, operation, { operation, request })
      expect([again.status, again.headers.get('idempotent-replayed')]).toEqual([200, 'true'])
      expect(await stored(again.body.id)).toEqual(await stored(first.body.id))
    },
  )
})

const answers = {
  'chat.completions': {
    x: 1,
    choices: [{ index: 0, message: { role: 'assistant', content: 'hi' }, finish_reason: 'stop' }],
  },
  responses: { x: 1, object: 'response', status: 'completed', output: [] },
  embeddings: { x: 1, object: 'list', data: [{ object: 'embedding', index: 0, embedding: [0.5] }] },
  messages: {
    x: 1,
    type: 'message',
    role: 'assistant',
    content: [{ type: 'text', text: 'hi' }],
    stop_reason: 'end_turn',
  },
}
