import type { Operation } from '@askonce/core'

/** Which API a lane's provider speaks. */
export type ProviderKind = 'openai' | 'anthropic' | 'simulated'
type RealKind = Exclude<ProviderKind, 'simulated'>

/** As in the SDKs of these providers: the OpenAI base URL ends in `/v1`, the Anthropic one does not. */
const defaultBaseUrls: Record<RealKind, string> = {
  openai: 'https://api.openai.com/v1',
  anthropic: 'https://api.anthropic.com',
}

const paths: Record<ProviderKind, Partial<Record<Operation, string>>> = {
  openai: { 'chat.completions': '/chat/completions', responses: '/responses', embeddings: '/embeddings' },
  anthropic: { messages: '/v1/messages' },
  simulated: {
    'chat.completions': '/v1/chat/completions',
    responses: '/v1/responses',
    embeddings: '/v1/embeddings',
    messages: '/v1/messages',
  },
}

/** Path below the base URL; null: this kind of provider does not speak the operation. */
export function endpointPath(kind: ProviderKind, operation: Operation): string | null {
  return paths[kind][operation] ?? null
}

export interface BaseUrl {
  origin: string
  /** Path of the base URL without a trailing slash; may be empty. */
  pathPrefix: string
}

/** Throws a TypeError for anything that is not an http(s) URL of origin and path. */
export function parseBaseUrl(kind: RealKind, text: string | null): BaseUrl {
  let url: URL
  try {
    url = new URL(text ?? defaultBaseUrls[kind])
  } catch {
    throw new TypeError(`The base URL of the ${kind} provider is not a URL`)
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new TypeError(`The base URL of the ${kind} provider must start with http:// or https://`)
  }
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new TypeError(`The base URL of the ${kind} provider may hold no user name, password, query or fragment`)
  }
  return { origin: url.origin, pathPrefix: url.pathname.replace(/\/+$/, '') }
}

/** Header lines of every request. Throws a TypeError for a key that no header can carry. */
export function requestHeaders(kind: RealKind, apiKey: string | null): Record<string, string> {
  if (apiKey !== null && !/^[\x21-\x7e]+$/.test(apiKey)) {
    throw new TypeError(`The API key of the ${kind} provider holds characters that a header cannot carry`)
  }
  const common = {
    'content-type': 'application/json',
    accept: 'application/json',
    'accept-encoding': 'identity',
    'user-agent': 'askonce/0.1',
  }
  if (kind === 'anthropic') {
    return { ...common, 'anthropic-version': '2023-06-01', ...(apiKey === null ? {} : { 'x-api-key': apiKey }) }
  }
  return { ...common, ...(apiKey === null ? {} : { authorization: `Bearer ${apiKey}` }) }
}
