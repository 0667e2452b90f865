import { calcPrice, type ConditionalPrice, type ModelInfo, type ModelPrice } from '@pydantic/genai-prices'
import type { CallBounds } from '@askonce/core'
import { parseBaseUrl } from './endpoint.ts'
import { globPattern, listFor, type PriceOverride } from './prices.ts'
import type { LaneEndpoint } from './provider.ts'

/** The most that one call can cost, US dollars, and use, tokens; null: unknown. */
export interface WorstCase {
  reserveUsd: number | null
  reserveTokens: number
}

/** Taken for the output of a request that sets no limit, where only its tokens count: the end of the call corrects it. */
const usualOutputTokens = 4_096
/** More than any budget, and as much as the columns hold. */
const mostUsd = 999_999_999
const mostTokens = 2_147_483_647
/** Model names come from requests: the cache is emptied before it can grow without end. */
const maxCachedModels = 1_000

/** What is known of a model: its dearest rates, US dollars. */
interface Rates {
  inputTokenUsd: number
  outputTokenUsd: number
  requestUsd: number
  maxOutputTokens: number | null
  contextTokens: number | null
  /** The operator says so: for whatever way the model is called in. */
  isOwn: boolean
}

/**
 * Bounds calls by what they may use and by the prices of this configuration: the operator's first, then the list that ships inside
 * `@pydantic/genai-prices`. Of several rates of a model (written to a cache, beyond a length of context, in audio, at a time of day) the
 * dearest counts. A lane that is not configured has no prices.
 */
export function createWorstCase(
  lanes: readonly Pick<LaneEndpoint, 'name' | 'kind' | 'baseUrl'>[],
  overrides: readonly PriceOverride[],
): (lane: string, model: string, bounds: CallBounds) => WorstCase {
  const globs = overrides.map((override) => ({ override, pattern: globPattern(override.model) }))
  const known = new Map(
    lanes.map(({ name, kind, baseUrl }) => [
      name,
      kind === 'simulated' ? null : listFor(kind, parseBaseUrl(kind, baseUrl)),
    ]),
  )
  const cached = new Map<string, Rates | null>()

  const find = (lane: string, model: string): Rates | null => {
    const list = known.get(lane)
    const priced =
      list === null || list === undefined ? null : calcPrice({ input_tokens: 0 }, model, { provider: list })
    const override = globs.find(({ pattern }) => pattern.test(model))?.override
    const contextTokens = priced?.model.context_window ?? null
    if (override !== undefined) return { ...ownRates(override), contextTokens }
    if (list === null) return { ...free, contextTokens }
    return priced === null ? null : listedRates(priced.model)
  }
  const ratesOf = (lane: string, model: string): Rates | null => {
    const name = `${lane}\n${model}`
    let rates = cached.get(name)
    if (rates === undefined) {
      if (cached.size >= maxCachedModels) cached.clear()
      rates = find(lane, model)
      cached.set(name, rates)
    }
    return rates
  }
  return (lane, model, bounds) => {
    const rates = ratesOf(lane, model)
    const usd = rates === null ? null : usdOf(rates, bounds)
    const output = bounds.outputTokens ?? rates?.maxOutputTokens ?? usualOutputTokens
    return {
      reserveUsd: usd === null ? null : Math.min(mostUsd, Math.ceil(usd * 1e10) / 1e10),
      reserveTokens: Math.min(mostTokens, bounds.inputTokens + bounds.answers * output),
    }
  }
}

/** The simulated provider. */
const free = { inputTokenUsd: 0, outputTokenUsd: 0, requestUsd: 0, maxOutputTokens: null, isOwn: true }

function usdOf(rates: Rates, bounds: CallBounds): number | null {
  const { inputTokenUsd, outputTokenUsd, requestUsd, contextTokens } = rates
  if (inputTokenUsd === 0 && outputTokenUsd === 0 && requestUsd === 0) return 0
  if (bounds.isOpenEnded || (bounds.hasOwnTariff && !rates.isOwn)) return null
  const inputTokens = bounds.isStored ? contextTokens : bounds.inputTokens
  // Input and output together are within the context.
  const outputTokens = bounds.outputTokens ?? rates.maxOutputTokens ?? contextTokens
  if (inputTokens === null || outputTokens === null) return null
  return inputTokens * inputTokenUsd + bounds.answers * outputTokens * outputTokenUsd + requestUsd
}

function ownRates(override: PriceOverride): Omit<Rates, 'contextTokens'> {
  const { inputPerMillionUsd, outputPerMillionUsd, maxOutputTokens = null } = override
  return {
    inputTokenUsd: inputPerMillionUsd / 1e6,
    outputTokenUsd: outputPerMillionUsd / 1e6,
    requestUsd: 0,
    maxOutputTokens,
    isOwn: true,
  }
}

function listedRates({ prices, context_window: contextTokens }: ModelInfo): Rates {
  const inForce = Array.isArray(prices) ? prices.filter((_, index) => !isOver(prices, index)) : [{ prices }]
  const dearest = (names: RegExp): number =>
    Math.max(0, ...inForce.flatMap(({ prices: price }) => ratesIn(price, names)))
  return {
    inputTokenUsd: dearest(/^(?:input|cache)_.*mtok$/) / 1e6,
    outputTokenUsd: dearest(/^output_.*mtok$/) / 1e6,
    requestUsd: dearest(/^requests_kcount$/) / 1e3,
    maxOutputTokens: null,
    contextTokens: contextTokens ?? null,
    isOwn: false,
  }
}

/** Whether a later price of the list has taken the place of this one for good. */
function isOver(prices: readonly ConditionalPrice[], index: number): boolean {
  if (prices[index]?.constraint?.type === 'time_of_date') return false
  return prices
    .slice(index + 1)
    .some(({ constraint }) => constraint?.type === 'start_date' && Date.parse(constraint.start_date) <= Date.now())
}

function ratesIn(price: ModelPrice, names: RegExp): number[] {
  return Object.entries(price).flatMap(([name, rate]) => {
    if (rate === undefined || !names.test(name)) return []
    return typeof rate === 'number' ? [rate] : [rate.base].concat(rate.tiers.map((tier) => tier.price))
  })
}
