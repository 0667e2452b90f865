import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { didYouMean } from './problems.ts'
import { readAnthropicUrl, readHttpUrl } from './readers.ts'

const text = (expected: string) => z.string({ error: expected })
const nonNegative = (expected: string) => z.number({ error: expected }).nonnegative({ error: expected })

const NAME = 'lower-case letters, digits and hyphens, at most 40, for example "vllm"'
const ENV = 'the name of an environment variable that does not begin with ASKONCE_, for example "VLLM_API_KEY"'
const GLOBS = 'a list of at least one model pattern, for example ["qwen*"]'
const TOKENS = 'the most tokens in one answer, for example 16384'
const DOLLARS = 'US dollars per million tokens, for example 0.1'

const lane = z
  .strictObject(
    {
      name: text(NAME)
        .regex(/^[a-z0-9-]{1,40}$/, NAME)
        .refine((name) => !['openai', 'anthropic', 'simulated'].includes(name), 'a name that is not a built-in lane'),
      kind: z.enum(['openai', 'anthropic'], { error: 'the API it speaks, "openai" or "anthropic"' }),
      base_url: text('an http:// or https:// address'),
      api_key_env: text(ENV)
        .regex(/^(?!ASKONCE_)[A-Za-z_][A-Za-z0-9_]*$/, ENV)
        .optional(),
      look_up: z.enum(['off', 'stored'], { error: '"off" or "stored"' }).default('off'),
      models: z.array(text(GLOBS).regex(/^\S+$/, GLOBS), { error: GLOBS }).min(1, GLOBS),
    },
    { error: unlessUnknownKey('an object with name, kind, base_url, models and perhaps api_key_env and look_up') },
  )
  .transform((given, context) => {
    if (given.kind !== 'openai' && given.look_up !== 'off') {
      context.addIssue({ code: 'custom', message: '"off": only kind openai has look-ups', path: ['look_up'] })
    }
    const reading = given.kind === 'openai' ? readHttpUrl(given.base_url) : readAnthropicUrl(given.base_url)
    if ('value' in reading) return { ...given, base_url: reading.value }
    context.addIssue({ code: 'custom', message: reading.expected, path: ['base_url'] })
    return z.NEVER
  })

const price = z.strictObject(
  {
    model: text('a model pattern, for example "qwen*"').regex(/^\S+$/, 'a model pattern, for example "qwen*"'),
    input_per_million_usd: nonNegative(DOLLARS),
    output_per_million_usd: nonNegative(DOLLARS),
    max_output_tokens: z.int({ error: TOKENS }).min(1, TOKENS).max(100_000_000, TOKENS).optional(),
  },
  {
    error: unlessUnknownKey(
      'an object with model, input_per_million_usd, output_per_million_usd and perhaps max_output_tokens',
    ),
  },
)

const fileSchema = z.strictObject(
  {
    lanes: z.array(lane, { error: 'a list of lanes' }).default([]),
    prices: z.array(price, { error: 'a list of prices' }).default([]),
  },
  { error: unlessUnknownKey('an object with lanes and prices') },
)

const knownKeys: Record<string, readonly string[]> = {
  '': Object.keys(fileSchema.shape),
  lanes: Object.keys(lane.in.shape),
  prices: Object.keys(price.shape),
}

export type ConfigFile = z.infer<typeof fileSchema>

/** zod's own text for an unknown key is replaced below; everything else wrong with an object gets `expected`. */
function unlessUnknownKey(expected: string) {
  return (issue: { code?: string }) => (issue.code === 'unrecognized_keys' ? undefined : expected)
}

function pointer(path: readonly PropertyKey[]): string {
  const steps = path.map((step) => String(step).replaceAll('~', '~0').replaceAll('/', '~1'))
  return steps.length === 0 ? '(the document)' : `/${steps.join('/')}`
}

/** What stands at `path`, shortened; an address, and a text that may be a key, is not shown. */
function shown(document: unknown, path: readonly PropertyKey[]): string {
  const value = path.reduce<unknown>((at, step) => (at as Record<PropertyKey, unknown> | undefined)?.[step], document)
  if (value === undefined) return 'is missing'
  const json = JSON.stringify(value)
  return json.length > 60 || /[@?#]/.test(json) || (path.at(-1) === 'api_key_env' && !json.startsWith('"ASKONCE_'))
    ? 'is not valid'
    : `is ${json}`
}

/** Without the piece of the document that Node quotes. */
function whyOf({ message }: Error): string {
  return message.replace(/, (?:\.\.\.)?".*" is not valid JSON$/s, ' is not expected there')
}

function explain(issue: z.core.$ZodIssue, document: unknown): string[] {
  if (issue.code !== 'unrecognized_keys') {
    return [`${pointer(issue.path)} ${shown(document, issue.path)}: expected ${issue.message}`]
  }
  const known = knownKeys[String(issue.path[0] ?? '')] ?? []
  return issue.keys.map((key) => {
    const meant = didYouMean(key, known)
    const hint = meant ? `did you mean ${meant}?` : `known are ${known.join(', ')}`
    return `${pointer([...issue.path, key])} is not known: ${hint}`
  })
}

/**
 * Reads and checks the configuration file. `problems` name the file and the JSON pointer of each fault; the file
 * itself is empty then.
 */
export function readConfigFile(file: string): ConfigFile & { problems: string[] } {
  const nothing = { lanes: [], prices: [] }
  let document: unknown
  try {
    document = JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    const what = error instanceof SyntaxError ? 'is not JSON' : 'cannot be read'
    return {
      ...nothing,
      problems: [`ASKONCE_CONFIG is ${JSON.stringify(file)}, which ${what}: ${whyOf(error as Error)}`],
    }
  }
  const parsed = fileSchema.safeParse(document)
  if (!parsed.success) {
    const found = parsed.error.issues.flatMap((issue) => explain(issue, document))
    return { ...nothing, problems: found.map((problem) => `${file}: ${problem}`) }
  }
  const names = parsed.data.lanes.map(({ name }) => name)
  const doubled = names.flatMap((name, index) => (names.indexOf(name) < index ? [index] : []))
  const problems = doubled.map(
    (index) => `${file}: /lanes/${index}/name is "${names[index]}": expected a name of its own`,
  )
  return { ...parsed.data, problems }
}
