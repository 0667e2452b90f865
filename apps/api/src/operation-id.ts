/** Words that no rule makes from a path. */
const named: Readonly<Record<string, string>> = {
  'GET /': 'getServer',
  'GET /healthz': 'getHealth',
  'GET /readyz': 'getReadiness',
  'GET /metrics': 'getMetrics',
  'GET /openapi.json': 'getDescription',
  'GET /v1/spend': 'getSpend',
}

/**
 * What generated clients call an operation: `createJob`, `listJobs`, `resumeLane`, `getJobResponse`, `retryJobs` for many. Made from
 * the path, which is made of collections, ids and actions.
 */
export function operationIdOf(method: string, path: string): string {
  const own = named[`${method} ${path}`]
  if (own !== undefined) return own
  const steps = path.replace(/^\/(?:openai|anthropic)?\/?v1\//, '').split('/')
  const words = steps.filter((step) => !step.startsWith('{') && step !== 'bulk')
  const last = words.at(-1) ?? ''
  const parent = words.slice(0, -1)
  const endsInId = steps.at(-1)?.startsWith('{') === true
  if (steps.includes('bulk')) {
    return last === 'jobs' ? `create${plural(words)}` : `${camel(last)}${plural(parent)}`
  }
  if (endsInId) return `${method === 'GET' ? 'get' : method.toLowerCase()}${singular(words)}`
  const belongs = steps.some((step) => step.startsWith('{'))
  if (!belongs) return method === 'GET' ? `list${plural(words)}` : `create${singular(words)}`
  if (method !== 'GET') return `${camel(last)}${singular(parent)}`
  return last.endsWith('s') ? `list${singular(parent)}${title(last)}` : `get${singular(parent)}${title(last)}`
}

function singular(words: readonly string[]): string {
  return words.map((word) => title(word.replace(/(?<=ch)es$|(?<!s)s$/, ''))).join('')
}

/** The last word in the plural: `ChatCompletions`. */
function plural(words: readonly string[]): string {
  return singular(words.slice(0, -1)) + title(words.at(-1) ?? '')
}

function title(word: string): string {
  const text = camel(word)
  return text.slice(0, 1).toUpperCase() + text.slice(1)
}

function camel(word: string): string {
  return word.replaceAll(/[^A-Za-z0-9]+(\w)/g, (_, letter: string) => letter.toUpperCase())
}
