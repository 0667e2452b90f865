import { isPassingError, watchAnswer } from './answer.ts'
import type { Fetch } from './fetch.ts'
import { leaseKey, type KeyLease } from './key-lease.ts'
import { memoryKeyStore, type KeyStore } from './key-store.ts'

export interface IdempotencyOptions {
  /** Where keys are kept until their answer has been read; default: in memory, which no crash survives. */
  store?: KeyStore
}

const generating = /\/(?:chat\/completions|responses|embeddings|messages)\/?$/
/**
 * Refusals that say nothing final about the call: they pass, or are about credentials and the address. An earlier send of the same
 * key may have been accepted, so a new key could pay twice once the API key or the base URL has been put right.
 */
const undecided = new Set([401, 403, 404, 407, 408, 409, 425, 429])

/**
 * A `fetch` that gives every call to a model (POST …/chat/completions, …/responses, …/embeddings, …/messages) an
 * `Idempotency-Key`, for the `fetch` option of the OpenAI and Anthropic SDKs, or alone.
 *
 * The key is in the store before the request leaves. The same request (path and body) gets the same key again until an answer to
 * it has been read to its end, or the server has refused it for good: over the SDK's retries, lost connections and, with a store
 * that lasts, a crash of the program. Two equal requests at the same time are two calls with two keys. A request that brings
 * `Idempotency-Key` or `Askonce-Key: derive` itself passes untouched.
 *
 * Use one store for one API key of Askonce. Rejects with {@link KeyStoreError} when a key cannot be stored.
 */
export function withIdempotency(fetch: Fetch = globalThis.fetch, options: IdempotencyOptions = {}): Fetch {
  const { store = memoryKeyStore() } = options
  // Browsers want their fetch called as a plain function.
  const send: Fetch = (input, init) => fetch(input, init)
  return async (input, init) => {
    const call = await readCall(input, init)
    if (call === null) return send(input, init)
    const lease = await leaseKey(store, call.digest)
    call.headers.set('idempotency-key', lease.key)
    let response: Response
    try {
      response = await send(input, Object.assign({}, init, { headers: call.headers }, call.body))
    } catch (error) {
      lease.keep()
      throw error
    }
    return settle(response, lease)
  }
}

/** Decides by the answer what becomes of the key. */
async function settle(response: Response, lease: KeyLease): Promise<Response> {
  const { status } = response
  // 202 is a receipt: the job goes on under this key.
  if (response.ok && status !== 202) {
    return watchAnswer(response, (isWhole) => (isWhole ? lease.forget() : lease.keep()))
  }
  const isRefused = status >= 400 && status < 500 && !undecided.has(status)
  // A held job may have been paid for: a new key would pay once more without anybody having decided it.
  if (isRefused && !(heldStatuses.has(status) && (await isHeld(response)))) await lease.forget()
  else lease.keep()
  return response
}

/** With which a server says that a job is held: to SDKs 400; 422 from one of before 0.2. */
const heldStatuses = new Set([400, 422])

async function isHeld(response: Response): Promise<boolean> {
  const text = await response
    .clone()
    .text()
    .catch(() => null)
  // An answer that broke off may have said it.
  return text === null || isPassingError(text)
}

interface Call {
  digest: string
  headers: Headers
  /** Replaces a body that could be read only once. */
  body: Pick<RequestInit, 'body'>
}

/** What is to be keyed in a request; null if it passes untouched. */
async function readCall(input: string | URL | Request, init: RequestInit | undefined): Promise<Call | null> {
  const request = input instanceof Request ? input : null
  const method = init?.method ?? request?.method ?? 'GET'
  if (method.toUpperCase() !== 'POST') return null
  // A relative address, as browsers have it, has a path all the same.
  const { pathname } = new URL(input instanceof Request ? input.url : input, 'http://localhost')
  if (!generating.test(pathname)) return null
  const headers = new Headers(init?.headers ?? request?.headers)
  if (headers.has('idempotency-key') || headers.has('askonce-key')) return null
  const given = init?.body ?? null
  const bytes = given === null && request !== null ? await bytesOf(request.clone().body) : await bytesOf(given)
  // A form, or nothing: no call to a model. The server will say so.
  if (bytes === null) return null
  const body = given instanceof ReadableStream ? { body: bytes } : {}
  return { digest: await digestOf(ownPath(pathname), bytes), headers, body }
}

/** Without what a proxy adds in front: a program that is moved behind one goes on with the keys that it has. */
function ownPath(pathname: string): string {
  return /\/(?:openai|anthropic)\/[^]*$/.exec(pathname)?.[0] ?? pathname
}

async function bytesOf(body: RequestInit['body'] | null): Promise<Uint8Array<ArrayBuffer> | null> {
  if (typeof body === 'string') return new TextEncoder().encode(body)
  const isBytes = body instanceof ArrayBuffer || ArrayBuffer.isView(body)
  if (!isBytes && !(body instanceof Blob) && !(body instanceof ReadableStream)) return null
  return new Uint8Array(await new Response(body).arrayBuffer())
}

/** SHA-256 of path and body, hexadecimal: what tells one request from another without keeping a prompt. */
async function digestOf(path: string, body: Uint8Array): Promise<string> {
  const head = new TextEncoder().encode(`${path}\n`)
  const all = new Uint8Array(head.length + body.length)
  all.set(head)
  all.set(body, head.length)
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', all))
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
