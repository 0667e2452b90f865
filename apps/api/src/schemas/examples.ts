/** What the page shows instead of invented values. A test checks them against their schemas. */
export const jobExample = {
  id: '0199c0de-5d1a-7c3e-9f10-2b8a4e6d7c11',
  object: 'job',
  key: 'hello-1',
  operation: 'chat.completions',
  model: 'simulated/small',
  state: 'succeeded',
  generation: 1,
  attempts: 1,
  replayed: true,
  streamed: false,
  response: {
    id: 'sim_1',
    object: 'chat.completion',
    choices: [{ index: 0, message: { role: 'assistant', content: '…' } }],
  },
  error: null,
  flags: ['simulated'],
  waiting_for: null,
  usage: { input_tokens: 19, output_tokens: 64, cost_usd: 0, paid_attempts: 1, maybe_paid_attempts: 0 },
  metadata: { run: '7' },
  created_at: '2026-01-31T12:00:00.000Z',
  run_at: '2026-01-31T12:00:00.000Z',
  started_at: '2026-01-31T12:00:00.020Z',
  completed_at: '2026-01-31T12:00:00.330Z',
  deadline_at: '2026-02-07T12:00:00.000Z',
  expires_at: '2026-02-02T12:00:00.330Z',
}

const reused = 'The key names another request: they differ at /request/model. Use a new key for a new request.'

export const problemExample = {
  type: 'urn:askonce:error:idempotency_key_reused',
  title: 'The key was used for a different request',
  status: 422,
  detail: reused,
  instance: 'urn:askonce:request:5f0c7a52-8d5e-4d5c-9d8e-0e5c7a528d5e',
  code: 'idempotency_key_reused',
  retryable: false,
  pointers: ['/request/model'],
  error: { message: reused, type: 'idempotency_error', param: 'Idempotency-Key', code: 'idempotency_key_reused' },
}
