import type { JsonObject } from '@askonce/core'

/** As many as the provider keeps. */
const maxPairs = 16

/** The metadata of a chat completion that the provider is asked to store; null: it is not. */
export function storedMetadata({ store, metadata }: JsonObject): Record<string, string> | null {
  if (store !== true) return null
  const pairs = typeof metadata === 'object' && metadata !== null ? Object.entries(metadata) : []
  const texts = pairs.filter((pair): pair is [string, string] => typeof pair[1] === 'string')
  return Object.fromEntries(texts.slice(0, maxPairs))
}

/** Whether this request asked to be stored, with these metadata among its own. */
export function isStoredWith(request: Uint8Array, wanted: Record<string, string>): boolean {
  const stored = storedMetadata(JSON.parse(Buffer.from(request).toString()) as JsonObject)
  return stored !== null && Object.entries(wanted).every(([name, value]) => stored[name] === value)
}
