import { findProvider } from '@pydantic/genai-prices'
import type { ProviderKind } from './endpoint.ts'

/** Names of models that the price list knows of a provider; of others (a local server) nobody knows them without asking. */
export function knownModels(kind: ProviderKind, baseUrl: string | null): string[] {
  if (kind === 'simulated') return ['simulated/small', 'simulated/large']
  const found =
    baseUrl === null ? findProvider({ providerId: kind }) : findProvider({ providerApiUrl: new URL(baseUrl).href })
  return (found?.models ?? []).map(({ id }) => id)
}
