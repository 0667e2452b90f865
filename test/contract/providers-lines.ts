import type { FailureVerdict } from '@askonce/core'
import { anthropicError, openaiError, type Behaviour } from '@askonce/testkit'

export type RealKind = 'openai' | 'anthropic'

/** One case of a line of ERRORS.md about an answer that is no success. */
export interface Line {
  name: string
  /** Providers that can say it. */
  kinds: readonly RealKind[]
  refuse: Omit<Extract<Behaviour, { kind: 'refuse' }>, 'kind'>
  verdict: Partial<FailureVerdict>
}

const both = ['openai', 'anthropic'] as const
const openai = ['openai'] as const
const anthropic = ['anthropic'] as const

const page = '<html><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>'
const stop = { kind: 'stop', billing: 'none', code: 'provider_rejected' } as const
const quota = { kind: 'alarm', billing: 'none', code: 'provider_quota' } as const
const pause = { kind: 'pause', billing: 'none', code: 'provider_rate_limited' } as const
const failed = { kind: 'rerun', billing: 'none', code: 'provider_error', overloaded: false } as const
const overloaded = { kind: 'rerun', billing: 'none', code: 'provider_unavailable', overloaded: true } as const
const gateway = { kind: 'unknown', billing: 'maybe', code: 'gateway_error', overloaded: true } as const
const unsaid = { ...gateway, overloaded: false } as const
const forbidden = { kind: 'stop', billing: 'none', code: 'provider_forbidden' } as const
const auth = { kind: 'alarm', billing: 'none', code: 'provider_auth' } as const
const noRoom = { kind: 'rerun', billing: 'none', code: 'provider_rate_limited', overloaded: false } as const
const unreached = { kind: 'rerun', billing: 'none', code: 'provider_unavailable', overloaded: true } as const

function line(name: string, kinds: readonly RealKind[], refuse: Line['refuse'], verdict: Line['verdict']): Line {
  return { name, kinds, refuse, verdict }
}

const lines: readonly Line[] = [
  // 400 invalid_request_error, context length, content policy, unsupported parameter; 404 model; 413; 422
  line('400 invalid_request_error', openai, { status: 400, body: openaiError('invalid_request_error') }, stop),
  line(
    '400 context length',
    openai,
    { status: 400, body: openaiError('invalid_request_error', 'context_length_exceeded') },
    stop,
  ),
  line(
    '400 content policy',
    openai,
    { status: 400, body: openaiError('invalid_request_error', 'content_policy_violation') },
    stop,
  ),
  line(
    '400 unsupported parameter',
    openai,
    { status: 400, body: openaiError('invalid_request_error', 'unsupported_parameter') },
    stop,
  ),
  line(
    '400 invalid_request_error',
    anthropic,
    { status: 400, body: anthropicError('invalid_request_error', 'prompt is too long') },
    stop,
  ),
  line(
    '400 of vLLM',
    openai,
    { status: 400, body: { object: 'error', message: 'too long', type: 'BadRequestError', code: 400 } },
    stop,
  ),
  line('404 model', openai, { status: 404, body: openaiError('invalid_request_error', 'model_not_found') }, stop),
  line('404 model', anthropic, { status: 404, body: anthropicError('not_found_error') }, stop),
  line('404 of Ollama', openai, { status: 404, body: { error: 'model "x" not found, try pulling it first' } }, stop),
  line('404 page of a wrong base URL', both, { status: 404, body: page }, stop),
  line('413', anthropic, { status: 413, body: anthropicError('request_too_large') }, stop),
  line('413 page of a proxy', both, { status: 413, body: page }, stop),
  line('422', openai, { status: 422, body: openaiError('invalid_request_error') }, stop),
  line('422 of FastAPI', openai, { status: 422, body: { detail: [{ msg: 'field required' }] } }, stop),
  line('405 with the object', both, { status: 405, body: openaiError('invalid_request_error') }, stop),
  line('405 without it', both, { status: 405, body: page }, stop),
  line('415 without it', both, { status: 415, body: page }, stop),
  line('418 without it', both, { status: 418, body: 'teapot' }, stop),
  line('451 without a body', both, { status: 451, body: '' }, stop),
  line(
    '400 of Mistral',
    openai,
    { status: 400, body: { object: 'error', message: { detail: [{ msg: 'no' }] } } },
    stop,
  ),
  line('400 with a list of errors', both, { status: 400, body: { errors: [{ message: 'no' }] } }, stop),
  line('400 of Gemini', openai, { status: 400, body: [{ error: { code: 400, message: 'no' } }] }, stop),
  line('400 with a long reason', both, { status: 400, body: openaiError('x'.repeat(100_000)) }, stop),

  // 401; 403
  line('401', openai, { status: 401, body: openaiError('invalid_request_error', 'invalid_api_key') }, auth),
  line(
    '401 about a permission',
    openai,
    {
      status: 401,
      body: {
        error: {
          message: 'You have insufficient permissions for this operation. Missing scopes: model.request.',
          type: 'invalid_request_error',
        },
      },
    },
    forbidden,
  ),
  line(
    '401 about one model by its code',
    openai,
    { status: 401, body: openaiError('invalid_request_error', 'model_not_available') },
    forbidden,
  ),
  line(
    '401 about one model by its name',
    openai,
    { status: 401, body: { error: { message: 'Your key may not use `gpt-test`.', type: 'authentication_error' } } },
    forbidden,
  ),
  line(
    '401',
    anthropic,
    { status: 401, body: anthropicError('authentication_error') },
    { kind: 'alarm', billing: 'none', code: 'provider_auth' },
  ),
  line(
    '401 without the object',
    both,
    { status: 401, body: page },
    { kind: 'alarm', billing: 'none', code: 'provider_auth' },
  ),
  line(
    '403',
    openai,
    { status: 403, body: openaiError('invalid_request_error', 'unsupported_country') },
    { kind: 'stop', billing: 'none', code: 'provider_forbidden' },
  ),
  line(
    '403',
    anthropic,
    { status: 403, body: anthropicError('permission_error') },
    { kind: 'stop', billing: 'none', code: 'provider_forbidden' },
  ),

  // Spend limits
  line('402', both, { status: 402, body: anthropicError('billing_error') }, quota),
  line('402 without the object', both, { status: 402, body: page }, quota),
  line(
    '402 about the size of this request',
    openai,
    {
      status: 402,
      body: {
        error: {
          message: 'This request requires more credits. You requested up to 65536 tokens, but can only afford 1234.',
          code: 402,
        },
      },
    },
    stop,
  ),
  line(
    '402 of an empty account',
    openai,
    { status: 402, body: { error: { message: 'You requested up to 9 tokens, but can only afford 0.', code: 402 } } },
    quota,
  ),
  line(
    '429 insufficient_quota',
    openai,
    { status: 429, body: openaiError('insufficient_quota', 'insufficient_quota') },
    quota,
  ),
  ...[
    'credit_balance_exhausted',
    'organization_spend_limit_exceeded',
    'project_spend_limit_exceeded',
    'organization_usage_limit_exceeded',
  ].map((code) =>
    line(
      `429 ${code}`,
      openai,
      { status: 429, body: openaiError('rate_limit_error', code), headers: { 'retry-after': '1' } },
      { ...quota, retryAfterMs: null },
    ),
  ),
  ...[400, 429].flatMap((status) =>
    ['enforced_spend_limit_reached', 'contract_spend_limit_reached'].map((code) =>
      line(
        `${status} ${code}`,
        anthropic,
        { status, body: anthropicError('rate_limit_error', 'spend', { error_code: code }) },
        quota,
      ),
    ),
  ),
  line(
    '400 spend limit by its message',
    anthropic,
    {
      status: 400,
      body: anthropicError(
        'invalid_request_error',
        'You have reached your specified workspace API usage limits. You will regain access on …',
      ),
    },
    quota,
  ),
  line(
    '400 empty balance',
    anthropic,
    {
      status: 400,
      body: anthropicError('invalid_request_error', 'Your credit balance is too low to access the Anthropic API.'),
    },
    quota,
  ),
  line(
    '400 that only quotes such a message',
    anthropic,
    { status: 400, body: anthropicError('invalid_request_error', 'messages.0: Your credit balance is too low') },
    stop,
  ),

  // 408, 409
  ...[408, 409].flatMap((status) => [
    line(`${status} with the object`, openai, { status, body: openaiError('conflict') }, failed),
    line(`${status} with the object`, anthropic, { status, body: anthropicError('conflict_error') }, failed),
    line(`${status} without it`, both, { status, body: page, billed: true }, unsaid),
  ]),
  ...[425, 499].map((status) => line(`${status} without it`, both, { status, body: page, billed: true }, unsaid)),

  // 429
  line(
    '429 rate_limit_exceeded',
    openai,
    { status: 429, body: openaiError('requests', 'rate_limit_exceeded'), headers: { 'retry-after': '7' } },
    { ...pause, retryAfterMs: 7_000 },
  ),
  line(
    '429 slow_down',
    openai,
    { status: 429, body: openaiError('rate_limit_error', 'slow_down') },
    { ...pause, retryAfterMs: null },
  ),
  line(
    '429 ramp_limit_exceeded',
    openai,
    {
      status: 429,
      body: openaiError('rate_limit_error', 'ramp_limit_exceeded'),
      headers: { 'retry-after-ms': '250', 'retry-after': '1' },
    },
    { ...pause, retryAfterMs: 250 },
  ),
  line(
    '429 with reset headers',
    openai,
    {
      status: 429,
      body: openaiError('tokens', 'rate_limit_exceeded'),
      headers: {
        'x-ratelimit-remaining-requests': '9',
        'x-ratelimit-reset-requests': '6m0s',
        'x-ratelimit-remaining-tokens': '0',
        'x-ratelimit-reset-tokens': '1.5s',
      },
    },
    { ...pause, retryAfterMs: 1_500 },
  ),
  line(
    '429 rate_limit_error',
    anthropic,
    { status: 429, body: anthropicError('rate_limit_error'), headers: { 'retry-after': '12' } },
    { ...pause, retryAfterMs: 12_000 },
  ),
  line('429 without the object', both, { status: 429, body: page }, pause),
  line('429 with a wait of zero', both, { status: 429, body: page, headers: { 'retry-after': '0' } }, pause),
  line(
    '429 with a wait that is over',
    both,
    { status: 429, body: page, headers: { 'retry-after': 'Sun, 01 Nov 2020 12:00:00 GMT' } },
    { ...pause, retryAfterMs: null },
  ),
  line(
    '429 with a wait of a day',
    both,
    { status: 429, body: page, headers: { 'retry-after': '86000' } },
    { ...pause, retryAfterMs: 3_600_000 },
  ),
  line(
    '429 about the account',
    anthropic,
    { status: 429, body: anthropicError('rate_limit_error', 'This request would exceed your account’s rate limit.') },
    { ...pause, wholeLane: true },
  ),
  line(
    '429 of flex for want of capacity',
    openai,
    { status: 429, body: openaiError('rate_limit_error', 'resource_unavailable') },
    noRoom,
  ),
  line('498', openai, { status: 498, body: openaiError('flex', 'capacity_exceeded') }, noRoom),

  // 500, 502, 503, 529 with the object
  line('500', openai, { status: 500, body: openaiError('server_error') }, failed),
  line('500', anthropic, { status: 500, body: anthropicError('api_error') }, failed),
  line('502', both, { status: 502, body: openaiError('server_error') }, failed),
  line(
    '503',
    openai,
    {
      status: 503,
      body: openaiError('service_unavailable_error', 'server_is_overloaded'),
      headers: { 'retry-after': '20' },
    },
    { ...overloaded, retryAfterMs: 20_000 },
  ),
  line(
    '503 of llama.cpp',
    openai,
    { status: 503, body: { error: { code: 503, message: 'Loading model', type: 'unavailable_error' } } },
    overloaded,
  ),
  line('529', anthropic, { status: 529, body: anthropicError('overloaded_error') }, overloaded),

  // 504, and any 5xx without the object
  line('504 with the object', openai, { status: 504, body: openaiError('timeout'), billed: true }, gateway),
  line('504 with the object', anthropic, { status: 504, body: anthropicError('timeout_error'), billed: true }, gateway),
  ...[500, 502, 503, 504, 520, 529].flatMap((status) => [
    line(`${status} page of a proxy`, both, { status, body: page, billed: true }, gateway),
    line(`${status} without a body`, both, { status, body: '', billed: true }, gateway),
    line(
      `${status} with other JSON`,
      both,
      { status, body: { message: 'An invalid response was received' }, billed: true },
      gateway,
    ),
  ]),

  line('524 page of a proxy', both, { status: 524, body: page, billed: true }, gateway),
  line('507 with the object', both, { status: 507, body: openaiError('server_error'), billed: true }, gateway),

  // A proxy that has not reached the provider
  ...[521, 522, 523, 525, 526].map((status) => line(`${status}`, both, { status, body: page }, unreached)),

  // A wrong base URL
  line('301', both, { status: 301, body: '', headers: { location: '/v1/elsewhere' } }, stop),
  line('308', both, { status: 308, body: '', headers: { location: 'https://www.example.com/v1/messages' } }, stop),
  line('307 that says nowhere', both, { status: 307, body: '' }, stop),
]

/** The cases with the provider that says them, for a table of tests. */
export const cases = lines.flatMap((one) => one.kinds.map((kind) => ({ ...one, kind })))
