import { promisify } from 'node:util'
import { brotliDecompress, gunzip, inflate } from 'node:zlib'
import { headerValue, type Exchange, type Headers } from './exchange.ts'

const decoders: Record<string, (body: Buffer) => Promise<Buffer>> = {
  gzip: promisify(gunzip),
  'x-gzip': promisify(gunzip),
  br: promisify(brotliDecompress),
  deflate: promisify(inflate),
}

/** Whether the bytes of the body are what the provider wrote. */
export function isPlain(headers: Headers): boolean {
  return ['', 'identity'].includes(headerValue(headers, 'content-encoding')?.toLowerCase() ?? '')
}

/**
 * Undoes a content encoding that a server applied although we asked for `identity`. The decoded bytes are what is stored:
 * "exact bytes" means the body that the provider wrote, and readers of the answer would not expect the encoding either.
 * Anything that cannot be decoded is garbled; an encoding unknown to us stays as it is and is then found not to be JSON.
 */
export async function decodeBody(exchange: Exchange): Promise<Exchange> {
  if (exchange.kind === 'broken') return exchange
  const encoding = headerValue(exchange.headers, 'content-encoding')?.toLowerCase() ?? ''
  const decode = decoders[encoding]
  if (decode === undefined) return exchange
  try {
    return { ...exchange, body: await decode(exchange.body) }
  } catch (error) {
    const detail = `the body does not decode as ${encoding}: ${String(error)}`
    const { status, headers } = exchange
    return { kind: 'broken', reason: 'garbled', sent: true, detail, status, headers }
  }
}
