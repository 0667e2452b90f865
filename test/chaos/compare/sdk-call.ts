import { setTimeout as sleep } from 'node:timers/promises'

const maxRetries = 2
const retried = new Set([408, 409, 429])

/**
 * A chat completion as the stock SDKs make it: two retries on 408, 409, 429, 5xx, connection errors and timeouts, after half a
 * second doubling, or what Retry-After says. A body that breaks off is not retried by them; it throws.
 */
export async function callLikeSdk(baseUrl: string, request: object, timeoutMs: number): Promise<unknown> {
  for (let retries = 0; ; retries += 1) {
    const response = await fetch(`${baseUrl}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: 'Bearer chaos-provider-key' },
      body: JSON.stringify(request),
      signal: AbortSignal.timeout(timeoutMs),
    }).catch((error: unknown) => error as Error)
    const failed = response instanceof Error || response.status >= 500 || retried.has(response.status)
    if (!failed && response.ok) return await response.json()
    if (!failed || retries === maxRetries) {
      throw response instanceof Error ? response : new Error(`the provider answered ${response.status}`)
    }
    const asked = response instanceof Error ? null : response.headers.get('retry-after')
    const backoffMs = Math.min(500 * 2 ** retries, 8_000) * (1 - Math.random() / 4)
    await sleep(asked === null ? backoffMs : Number(asked) * 1_000)
  }
}
