/** What routing needs to know of a lane. */
export interface RoutableLane {
  name: string
  kind: 'openai' | 'anthropic' | 'simulated'
  /** Model names with `*` as wildcard that the lane claims for itself. */
  models: readonly string[]
}

export type Route = { ok: true; lane: string } | { ok: false; detail: string }

/**
 * Which lane calls a model. Lanes of the config file come first, by their patterns; then `simulated/*`, `claude*` and
 * the rest by name. With no real provider on, the simulated one answers for every model.
 */
export function routeModel(model: string, lanes: readonly RoutableLane[]): Route {
  const real = lanes.filter((lane) => lane.kind !== 'simulated')
  const simulated = lanes.find((lane) => lane.kind === 'simulated')
  const claimed = lanes.find((lane) => lane.models.some((pattern) => matches(pattern, model)))
  if (claimed !== undefined) return { ok: true, lane: claimed.name }
  if (simulated !== undefined && (real.length === 0 || model.startsWith('simulated/'))) {
    return { ok: true, lane: simulated.name }
  }
  const name = model.startsWith('claude') ? 'anthropic' : 'openai'
  if (real.some((lane) => lane.name === name)) return { ok: true, lane: name }
  const prefix = name === 'anthropic' ? 'ANTHROPIC' : 'OPENAI'
  return {
    ok: false,
    detail: `No provider is on for model ${JSON.stringify(model)}. Set ${prefix}_API_KEY or ${prefix}_BASE_URL on the API and the workers.`,
  }
}

function matches(pattern: string, model: string): boolean {
  const source = pattern.split('*').map(escape).join('.*')
  return new RegExp(`^${source}$`, 's').test(model)
}

function escape(text: string): string {
  return text.replace(/[.+?^${}()|[\]\\]/g, '\\$&')
}
