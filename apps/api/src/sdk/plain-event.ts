import { isUtf8 } from 'node:buffer'
import { readEvent, type Operation } from '@askonce/core'

/**
 * An event as every reader of streams takes it, or null where it says nothing: a comment, a block without data or with data that is no
 * object, a ping of a proxy.
 *
 * Stock readers are stricter than the standard. Python's SDKs fire an event at any blank line once they have seen an `id:`, and parse its
 * empty data; Vercel's `ai` ends only at exactly `[DONE]`. So whatever the standard tells readers to pass over is left out, and with it
 * the provider's own ids, which would take the place of ours. An event that is plain already keeps its bytes.
 */
export function plainEvent(event: Buffer, operation: Operation): Buffer | null {
  const isPlain = isUtf8(event) && plain.test(event.toString())
  const { name, data } = isPlain ? readName(event) : readEvent(event)
  if (name !== null && operation !== 'messages' && keepAliveNames.has(name)) return null
  if (isPlain) return event
  const said = data?.trim() ?? ''
  // Every event of these APIs is an object.
  if (!said.startsWith('{') && said !== '[DONE]') return null
  const lines = said === '[DONE]' ? [said] : (data ?? '').split('\n')
  const head = name === null || name === '' ? '' : `event: ${name}\n`
  return Buffer.from(`${head}${lines.map((line) => `data: ${line}\n`).join('')}\n`)
}

/** Perhaps a name, one line of JSON or the end, and the blank line. */
const plain = /^(?:event: ?[^\r\n]+\n)?data: ?(?:\{[^\r\n]*|\[DONE\])\n\n$/

/** Proxies send such events between those of the provider. Of Anthropic's API `ping` is a part, which its SDKs know. */
const keepAliveNames: ReadonlySet<string> = new Set(['ping', 'keepalive', 'keep-alive', 'heartbeat'])

/** The name of a plain event: its data, which may be long, is not read. */
function readName(event: Buffer): { name: string | null; data: null } {
  const first = event.subarray(0, event.indexOf('\n')).toString()
  return { name: first.startsWith('event:') ? first.slice('event:'.length).trim() : null, data: null }
}
