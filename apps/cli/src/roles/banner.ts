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
  return `
Askonce is running.

  address   ${address}
  docs      ${address}/docs
  API key   ${key}
  provider  ${provider}
  data      ${place}
  queue     ${config.redis.url === null ? 'BullMQ on Postgres' : `BullMQ on ${config.redis.url.toString()}`}

Ask something. The second time the same bytes come back at once, and nothing is called:

  curl -i ${address}/v1/jobs \\
    -H 'Authorization: Bearer ${key}' \\
    -H 'Idempotency-Key: hello-1' \\
    -H 'Content-Type: application/json' \\
    -H 'Prefer: wait=30' \\
    -d '{"operation":"chat.completions","request":{"model":"simulated/small","messages":[{"role":"user","content":"Why do idempotency keys matter?"}]}}'

Or a whole file:  npx askonce batch examples/prompts.jsonl --out answers.jsonl
Ctrl-C drains and stops everything. kill -9 is fine, too: start again.
`
}
