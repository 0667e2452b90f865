import { uncertainPolicies } from '@askonce/core'
import { z } from 'zod'
import {
  readAnthropicUrl,
  readHeaderNames,
  readHost,
  readHttpUrl,
  readInteger,
  readOneOf,
  readShare,
} from './readers.ts'
import { data } from './data-variables.ts'
import { publicAddress } from './public-address.ts'
import { integer, key, path, seconds, variable } from './variable.ts'

const defaultForwarded: readonly string[] = ['openai-organization', 'openai-project', 'http-referer', 'x-title']

const CENTURY = 3_153_600_000

const server = {
  HOST: variable(
    {
      unset: '127.0.0.1',
      accepts: 'IP address or host name',
      meaning: 'Where the API and the health ports listen. Only this machine by default; containers set `0.0.0.0`.',
      example: '0.0.0.0',
    },
    '127.0.0.1',
    readHost,
  ),
  PORT: integer(
    { unset: 8787, min: 0, max: 65_535, unit: 'port' },
    'Port of the API. 0 picks a free one and prints it.',
  ),
  ...publicAddress,
  ASKONCE_HEALTH_PORT: variable(
    {
      unset: 'off',
      accepts: 'port, 0 to 65535',
      meaning:
        'Port on which `worker` and `janitor` answer `/healthz`, `/readyz` and `/metrics` (the API has them on `PORT`).',
      example: '9090',
    },
    null,
    (given) => readInteger(given, 0, 65_535),
  ),
  ASKONCE_BOOTSTRAP_KEY: key(
    'none; `askonce start` then makes a key and keeps it in the data directory',
    'a-long-random-string',
    'API key (tenant `default`, every scope) that exists once `askonce start` or `askonce api` has started.',
    16,
    200,
  ),
  LOG_LEVEL: variable(
    {
      unset: 'info',
      accepts: 'fatal, error, warn, info, debug, trace or silent',
      meaning: 'The least important log lines that are written. No level prints prompts, answers or secrets.',
      example: 'debug',
    },
    'info',
    (given) => readOneOf(given, ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']),
  ),
  ASKONCE_CONFIG: path('none', null, '/etc/askonce.json', 'JSON file with more lanes and prices, see below.'),
}

const providers = {
  OPENAI_API_KEY: key('none', 'sk-proj-abc', 'Turns the `openai` lane on.'),
  OPENAI_BASE_URL: variable(
    {
      unset: '`https://api.openai.com/v1` once there is a key',
      accepts: 'http(s) address, by convention ending in /v1',
      meaning:
        'Any OpenAI-compatible server (vLLM, Ollama, llama.cpp …). Turns the `openai` lane on, also without a key.',
      example: 'http://127.0.0.1:11434/v1',
    },
    null,
    readHttpUrl,
  ),
  OPENAI_LOOK_UP: variable(
    {
      unset: 'off',
      accepts: 'off or stored',
      meaning:
        '`stored`: a chat completion that was sent with `"store": true` and whose answer was lost is looked up at the provider before it is paid for again. Needs a server that lists stored completions by metadata, as OpenAI does.',
      example: 'stored',
    },
    'off',
    (given) => readOneOf(given, ['off', 'stored']),
  ),
  ANTHROPIC_API_KEY: key('none', 'sk-ant-abc', 'Turns the `anthropic` lane on.'),
  ANTHROPIC_BASE_URL: variable(
    {
      unset: '`https://api.anthropic.com` once there is a key',
      accepts: 'http(s) address that does not end in /v1',
      meaning: 'Another server that speaks Anthropic’s API. Turns the `anthropic` lane on, also without a key.',
      example: 'https://api.anthropic.com',
    },
    null,
    readAnthropicUrl,
  ),
  ASKONCE_FORWARD_HEADERS: variable(
    {
      unset: defaultForwarded.join(','),
      accepts: 'names of headers with commas between, or `none`',
      meaning:
        'Headers of a stock SDK’s request that go to the provider with it, besides `anthropic-beta` and `openai-beta`, which always do. They are no part of what a key names: a replay with others is the same answer. Credentials, and what belongs to one connection, cannot be named.',
      example: 'openai-organization,openai-project',
    },
    defaultForwarded,
    readHeaderNames,
  ),
  ASKONCE_SIMULATED_LATENCY_MS: integer(
    { unset: 300, min: 0, max: 3_600_000, unit: 'milliseconds' },
    'How long a simulated call takes.',
  ),
  ASKONCE_SIMULATED_TOKENS: integer(
    { unset: 64, min: 1, max: 1_000_000, unit: 'tokens' },
    'Length of a simulated answer.',
  ),
  ASKONCE_SIMULATED_FAILURE_RATE: variable(
    {
      unset: '0',
      accepts: 'share, 0 to 1',
      meaning: 'Share of simulated calls that fail, to see reruns at work.',
      example: '0.1',
    },
    0,
    readShare,
  ),
}

const workers = {
  ASKONCE_CONCURRENCY: integer(
    { unset: 50, min: 1, max: 5000, unit: 'calls' },
    'Concurrent calls per lane and worker process. A call mostly waits for the network: the provider’s limits bound this, not the cores.',
  ),
  ASKONCE_DRAIN_SECONDS: seconds(
    30,
    0,
    86_400,
    'How long running calls may finish after SIGTERM; what is left is aborted and recorded as maybe billed. Set it above the longest `timeout_seconds`, and the supervisor’s kill delay above this.',
  ),
  ASKONCE_LEASE_SECONDS: seconds(
    6,
    3,
    60,
    'A worker whose heartbeat was seen unchanged for this long is dead, and its calls are taken from it; a third of it where Postgres shows that the process was killed (see [lifecycle](lifecycle.md#a-worker-dies-the-timeline)). Shorter recovers sooner; longer forgives longer pauses of a process.',
  ),
  ASKONCE_SWEEP_INTERVAL_SECONDS: seconds(
    10,
    1,
    86_400,
    'How often the janitor deletes expired answers. To requests they are absent from the moment of expiry.',
  ),
}

const limits = {
  ASKONCE_DEFAULT_TTL_SECONDS: seconds(
    172_800,
    1,
    CENTURY,
    'How long an answer is kept when neither the submission nor its tenant says (48 h: a producer that crashed at night can be run again the next day).',
  ),
  ASKONCE_MAX_TTL_SECONDS: seconds(
    31_536_000,
    1,
    CENTURY,
    'The longest `ttl_seconds` that a submission may ask for (a year).',
  ),
  ASKONCE_UNCERTAIN_TTL_SECONDS: seconds(
    2_592_000,
    1,
    CENTURY,
    'How long a job waits for a decision before it fails (30 days). Failed and cancelled jobs with paid attempts are kept at least as long.',
  ),
  ASKONCE_LEDGER_RETENTION_SECONDS: seconds(
    34_560_000,
    1,
    CENTURY,
    'How long the ledger of attempts is kept (400 days: a whole year can still be compared with the provider’s bill).',
  ),
  ASKONCE_BATCH_RETENTION_SECONDS: seconds(
    2_592_000,
    1,
    CENTURY,
    'How long a batch that has ended is kept, and its result files unless it says otherwise; also how long files with the purpose `batch` are kept unless their upload says otherwise (30 days, as at OpenAI).',
  ),
  ASKONCE_DEFAULT_DEADLINE_SECONDS: seconds(
    604_800,
    1,
    CENTURY,
    'A job that is still queued this long after its `run_at` fails (7 days).',
  ),
  ASKONCE_DEFAULT_TIMEOUT_SECONDS: seconds(
    600,
    1,
    86_400,
    'How long one call to a provider may take when neither the submission nor its tenant says (10 minutes, as in the providers’ own SDKs).',
  ),
  ASKONCE_DEFAULT_ON_UNCERTAIN: variable(
    {
      unset: 'rerun',
      accepts: 'rerun, hold or fail',
      meaning:
        'What happens after a call that may have been billed without an answer, where neither the submission nor its tenant says: see [billing](billing.md#how-to-choose). `hold` asks a person before anything is paid twice.',
      example: 'hold',
    },
    'rerun',
    (given) => readOneOf(given, uncertainPolicies),
  ),
  ASKONCE_DEFAULT_MAX_ATTEMPTS: integer(
    { unset: 5, min: 1, max: 100, unit: 'calls' },
    'Most calls per request to run, where neither the submission nor its tenant says.',
  ),
  ASKONCE_DEFAULT_MAX_PAID_ATTEMPTS: integer(
    { unset: 2, min: 1, max: 10, unit: 'calls' },
    'Most calls of a job that may have been billed, unless somebody consents to more, where neither the submission nor its tenant says.',
  ),
  ASKONCE_MAX_BODY_BYTES: integer(
    { unset: 33_554_432, min: 1024, max: 268_435_456, unit: 'bytes' },
    'Largest HTTP body, bulk submissions included (32 MiB).',
  ),
  ASKONCE_MAX_REQUEST_BYTES: integer(
    { unset: 10_485_760, min: 1024, max: 268_435_456, unit: 'bytes' },
    'Largest request of one job (10 MiB), at most `ASKONCE_MAX_BODY_BYTES`. Answers have no limit: they are paid for.',
  ),
  ASKONCE_SDK_WAIT_SECONDS: seconds(
    240,
    1,
    3_600,
    'How long a request of a stock SDK waits for its answer. Then it is told 504, and the same key continues: the SDKs ask again by themselves. Below the 300 s after which Node’s fetch gives up.',
  ),
  ASKONCE_MAX_FILE_BYTES: integer(
    { unset: 209_715_200, min: 1024, max: 1_073_741_824, unit: 'bytes' },
    'Largest file of a batch (200 MiB, as at OpenAI). Files are kept in the database, and never held in memory.',
  ),
  ASKONCE_MAX_QUEUED_SUBMISSIONS: integer(
    { unset: 10_000, min: 1, max: 1_000_000, unit: 'submissions' },
    'Submissions that one API process holds while they wait for their commit; more are answered 503 at once.',
  ),
}

const client = {
  ASKONCE_URL: variable(
    {
      unset: 'the server of `ASKONCE_DATA_DIR`',
      accepts: 'http(s) address',
      meaning: 'Server that the `askonce` commands talk to.',
      example: 'http://127.0.0.1:8787',
    },
    null,
    readHttpUrl,
  ),
  ASKONCE_API_KEY: key(
    'the key of `ASKONCE_DATA_DIR`',
    'a-long-random-string',
    'Key that the `askonce` commands send.',
  ),
}

/** The variables by chapter of the reference page. */
export const groups = {
  Server: server,
  Data: data,
  Providers: providers,
  Workers: workers,
  'Retention and limits': limits,
  'Command line': client,
}

/** The one schema of the environment. Durations come out in milliseconds. */
export const environmentSchema = z.object({ ...server, ...data, ...providers, ...workers, ...limits, ...client })

export type Environment = z.infer<typeof environmentSchema>
