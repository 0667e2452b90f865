import { apiKey, callTimeoutSeconds } from '../fleet.ts'
import { answerSha } from '../record.ts'
import { open, requestOf, type Backend, type Seen } from './backend.ts'

/** The producer's side over HTTP, with every option at its default but the policy and the time-out, which all systems share. */
export function askonceBackend(address: string, policy: string): Backend {
  const headers = { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' }
  const signal = (): AbortSignal => AbortSignal.timeout(10_000)
  return {
    async submit(key) {
      const body = JSON.stringify({
        operation: 'chat.completions',
        request: requestOf(key),
        timeout_seconds: callTimeoutSeconds,
        on_uncertain: policy,
      })
      const reply = await fetch(`${address}/v1/jobs`, {
        method: 'POST',
        headers: { ...headers, 'idempotency-key': key },
        body,
        signal: signal(),
      })
      await reply.text()
      if (!reply.ok) throw new Error(`the API answered ${reply.status}`)
    },
    async read(key) {
      const reply = await fetch(`${address}/v1/jobs?key=${key}`, { headers, signal: signal() })
      const { data } = (await reply.json()) as { data: { state: string; response: unknown }[] }
      const [job] = data
      return job === undefined ? open : seen(job)
    },
    close: () => Promise.resolve(),
  }
}

function seen({ state, response }: { state: string; response: unknown }): Seen {
  if (state === 'succeeded') return { how: 'answered', sha: answerSha(response) }
  if (state === 'uncertain') return { how: 'held', sha: null }
  return state === 'failed' || state === 'cancelled' ? { how: 'failed', sha: null } : open
}
