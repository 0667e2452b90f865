import { isUtf8 } from 'node:buffer'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Intake } from '@askonce/intake'
import { Problem } from '../../problem.ts'
import { RequestSplitter } from './split-requests.ts'

/** What an item may have besides its params. */
const envelopeBytes = 64 * 1024
/** Others get the processor after so long. */
const yieldAfterMs = 10

export const customIds = /^[a-zA-Z0-9_-]{1,64}$/

export interface ItemLimits {
  intake: Intake
  /** Of the keys, or one of its length. */
  keyPrefix: string
  maxParamsBytes: number
  maxRequests: number
  maxBodyBytes: number
}

/**
 * The items of the body of a message batch, checked as far as the provider does it at once: what they ask for is checked later, and becomes
 * the result of its line. Holds one item, and the custom_ids.
 */
export async function* itemsOf(
  body: AsyncIterable<Buffer>,
  { intake, keyPrefix, maxParamsBytes, maxRequests, maxBodyBytes }: ItemLimits,
): AsyncGenerator<Buffer[]> {
  const splitter = new RequestSplitter(maxParamsBytes + envelopeBytes)
  const kind = {
    kind: 'anthropic',
    operation: 'messages',
    endpoint: '/v1/messages',
    keyPrefix,
    headers: null,
  } as const
  const known = new Set<string>()
  let bytes = 0
  let turnEndsAt = performance.now() + yieldAfterMs
  const readItem = async (item: Buffer): Promise<void> => {
    const place = `/requests/${known.size}`
    const refuse = (member: string, what: string): Problem =>
      new Problem('invalid_request', `${place}${member}: ${what}`, { param: `${place}${member}` })
    if (!isUtf8(item)) throw refuse('', 'is not UTF-8')
    const checked = await intake.line({ kind, body: item })
    if (!checked.ok && checked.customId === null) {
      const { message, param } = checked.fault
      throw new Problem('invalid_request', `${place}${param === null || param === '' ? ': ' : ''}${message}`, {
        param: place + (param ?? ''),
      })
    }
    const customId = checked.customId ?? ''
    if (!customIds.test(customId))
      throw refuse('/custom_id', 'must have 1 to 64 letters, digits, underscores or dashes')
    if (known.has(customId)) throw refuse('/custom_id', 'is used by an earlier request')
    if (known.size >= maxRequests) throw refuse('', `a batch has at most ${maxRequests} requests`)
    known.add(customId)
  }
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > maxBodyBytes) {
      throw new Problem('payload_too_large', `The body has more than ${maxBodyBytes} bytes.`, { param: '' })
    }
    const items = splitter.push(chunk)
    for (const item of items) {
      await readItem(item)
      if (performance.now() < turnEndsAt) continue
      await nextTurn()
      turnEndsAt = performance.now() + yieldAfterMs
    }
    yield items
  }
  splitter.end()
}
