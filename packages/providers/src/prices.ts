import {
  calcPrice,
  extractUsage,
  findProvider,
  type Provider as PriceList,
  type Usage as Units,
} from '@pydantic/genai-prices'
import type { Operation, Usage } from '@askonce/core'
import type { BaseUrl, ProviderKind } from './endpoint.ts'
import { isObject, stringMember, type JsonObject } from './json-value.ts'

/** A price that the operator sets; `model` may hold `*`. */
export interface PriceOverride {
  model: string
  inputPerMillionUsd: number
  outputPerMillionUsd: number
  /** The most that the model writes in one answer, reasoning included; null or absent: unknown. */
  maxOutputTokens?: number | null
}

export interface PriceBook {
  /** Tokens that an answer reports and what they cost; each is null when it cannot be known. */
  usageOf: (operation: Operation, requestModel: string, answer: JsonObject) => Usage
}

/** Model names come from requests: the cache is emptied before it can grow without end. */
const maxCachedModels = 1_000

/** Names in the price list's own vocabulary of where an answer of each operation keeps its usage. */
const flavors: Record<Operation, { provider: string; flavor: string }> = {
  'chat.completions': { provider: 'openai', flavor: 'chat' },
  responses: { provider: 'openai', flavor: 'responses' },
  embeddings: { provider: 'openai', flavor: 'embeddings' },
  messages: { provider: 'anthropic', flavor: 'default' },
}

/**
 * Prices: overrides first, then the list that ships inside `@pydantic/genai-prices` (it fetches nothing unless its
 * `updatePrices` is called, and nobody calls it). The list of the provider behind the base URL is used where it is known
 * there, else that of the API spoken, so that a gateway in front of OpenAI is priced while a local model has no price.
 * A simulated call costs nothing.
 */
export function createPriceBook(
  kind: ProviderKind,
  baseUrl: BaseUrl | null,
  overrides: readonly PriceOverride[],
): PriceBook {
  const list = kind === 'simulated' ? undefined : listFor(kind, baseUrl)
  const globs = overrides.map((override) => ({ override, pattern: globPattern(override.model) }))
  const cached = new Map<string, PriceList | null>()

  /** The list cut down to the one model: a lookup in the whole takes about 140 µs, in this about 14 µs. */
  const listOf = (model: string): PriceList | null => {
    const known = cached.get(model)
    if (known !== undefined) return known
    const found =
      list === undefined ? null : calcPrice({ input_tokens: 0, output_tokens: 0 }, model, { provider: list })
    const cut = found === null ? null : { ...found.provider, models: [found.model] }
    if (cached.size >= maxCachedModels) cached.clear()
    cached.set(model, cut)
    return cut
  }
  const costOf = (models: string[], tokens: Tokens, units: Units | null): number | null => {
    for (const model of models) {
      const match = globs.find(({ pattern }) => pattern.test(model))
      if (match !== undefined) return overrideCost(match.override, tokens)
    }
    if (kind === 'simulated') return 0
    if (units === null) return null
    for (const model of models) {
      const price = listOf(model)
      if (price !== null) return calcPrice(units, model, { provider: price })?.total_price ?? null
    }
    return null
  }

  return {
    usageOf: (operation, requestModel, answer) => {
      const units = extract(operation, answer)
      const tokens = reportedTokens(answer['usage'])
      tokens.inputTokens = count(units?.input_tokens) ?? tokens.inputTokens
      const answerModel = stringMember(answer, 'model')
      const models = answerModel === null || answerModel === requestModel ? [requestModel] : [answerModel, requestModel]
      return { ...tokens, costUsd: rounded(attempt(() => costOf(models, tokens, units))) }
    },
  }
}

interface Tokens {
  /** With the tokens read from and written to a cache, which Anthropic counts apart. */
  inputTokens: number | null
  outputTokens: number | null
}

export function listFor(kind: 'openai' | 'anthropic', baseUrl: BaseUrl | null): PriceList | undefined {
  const url = baseUrl === null ? null : baseUrl.origin + baseUrl.pathPrefix
  return (url === null ? undefined : findProvider({ providerApiUrl: url })) ?? findProvider({ providerId: kind })
}

function extract(operation: Operation, answer: JsonObject): Units | null {
  const { provider, flavor } = flavors[operation]
  const list = findProvider({ providerId: provider })
  return list === undefined ? null : attempt(() => extractUsage(list, answer, flavor).usage)
}

function reportedTokens(usage: unknown): Tokens {
  if (!isObject(usage)) return { inputTokens: null, outputTokens: null }
  return {
    inputTokens: count(usage['prompt_tokens']) ?? count(usage['input_tokens']),
    outputTokens: count(usage['completion_tokens']) ?? count(usage['output_tokens']),
  }
}

function count(value: unknown): number | null {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : null
}

function overrideCost(override: PriceOverride, { inputTokens, outputTokens }: Tokens): number | null {
  if (inputTokens === null && outputTokens === null) return null
  return (
    ((inputTokens ?? 0) * override.inputPerMillionUsd + (outputTokens ?? 0) * override.outputPerMillionUsd) / 1_000_000
  )
}

export function globPattern(glob: string): RegExp {
  const source = glob.split('*').map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`))
  return new RegExp(`^${source.join('.*')}$`, 's')
}

/** To ten decimals, below one token of the cheapest model: sums of doubles end in noise. */
function rounded(costUsd: number | null): number | null {
  return costUsd === null || !Number.isFinite(costUsd) ? null : Math.round(costUsd * 1e10) / 1e10
}

/** The price list throws on usage that it does not understand; a paid answer must never be lost to that. */
function attempt<Value>(compute: () => Value): Value | null {
  try {
    return compute()
  } catch {
    return null
  }
}
