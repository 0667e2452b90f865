import { join } from 'node:path'
import type { Config } from '@askonce/config'

/** What `askonce start` prints when everything runs. */
export function banner({
  config,
  address,
  key,
  place,
}: {
  config: Config
  address: string
  key: string
  place: string
}): string {
  const real = config.lanes.filter(({ kind }) => kind !== 'simulated')
  const provider = config.providersOn
    ? real.map(({ name, baseUrl }) => `${name} (${baseUrl})`).join(', ')
    : 'none: only models named simulated/* are answered, with made-up text.\n            Set OPENAI_API_KEY or ANTHROPIC_API_KEY for real answers'
  const shown = config.http.publicUrl ?? address
  return `
Askonce is running.

  address   ${shown}${shown === address ? '' : `, listening on ${address}`}
  docs      ${shown}/docs
  API key   ${key}
  provider  ${provider}
  data      ${place}
  queue     ${config.redis.url === null ? 'BullMQ on Postgres' : `BullMQ on ${config.redis.url.toString()}`}

Ask something. Asked again, it comes back at once from the database:

  curl -i ${shown}/v1/jobs \\
    -H 'Authorization: Bearer ${key}' \\
    -H 'Idempotency-Key: hello-1' \\
    -H 'Content-Type: application/json' \\
    -H 'Prefer: wait=30' \\
    -d '{"operation":"chat.completions","request":{"model":"simulated/small","messages":[{"role":"user","content":"Why do idempotency keys matter?"}]}}'

Or a whole file:  npx askonce batch examples/prompts.jsonl --out answers.jsonl
Ctrl-C drains and stops everything. kill -9 is fine, too: start again.
`
}

/** Said below the banner when the key that it shows has been revoked. */
export function revokedKeyNotice({ bootstrapKey, dataDir }: Config): string {
  const other =
    bootstrapKey === null
      ? `delete ${join(dataDir, 'api-key')} and start again: a new key is made`
      : 'set ASKONCE_BOOTSTRAP_KEY to another one, or unset it, and start again'
  return `The API key above was revoked, and stays so: requests with it get 401. To get in, ${other}; or make a key with \`askonce keys create\`.`
}
