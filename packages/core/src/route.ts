/** What routing needs to know of a lane. */
export interface RoutableLane {
  name: string
  kind: 'openai' | 'anthropic' | 'simulated'
  /** Model names with `*` as wildcard that the lane claims for itself. */
  models: readonly string[]
}

export type Route = { ok: true; lane: string } | { ok: false; detail: string }

/** The lane whose answers are made up. No lane of the config file can have its name. */
export const simulatedLane = 'simulated'

/** The models that the simulated provider answers. */
export function isSimulatedModel(model: string): boolean {
  return model.startsWith('simulated/')
}

/**
 * Which lane calls a model. Lanes of the config file come first, by their patterns; then `simulated/*`, `claude*` and
 * the rest by name. The simulated provider answers for no other model: with a key that is empty by mistake, made-up answers
 * would pass for real ones.
 */
export function routeModel(model: string, lanes: readonly RoutableLane[]): Route {
  const real = lanes.filter((lane) => lane.kind !== 'simulated')
  const simulated = lanes.find((lane) => lane.kind === 'simulated')
  const claimed = lanes.find((lane) => lane.models.some((pattern) => matches(pattern, model)))
  if (claimed !== undefined) return { ok: true, lane: claimed.name }
  if (simulated !== undefined && isSimulatedModel(model)) return { ok: true, lane: simulated.name }
  const name = model.startsWith('claude') ? 'anthropic' : 'openai'
  if (real.some((lane) => lane.name === name)) return { ok: true, lane: name }
  const prefix = name === 'anthropic' ? 'ANTHROPIC' : 'OPENAI'
  const hint = simulated === undefined ? '' : ', or ask for simulated/small to get made-up answers'
  return {
    ok: false,
    detail: `No provider is on for model ${JSON.stringify(model)}. Set ${prefix}_API_KEY or ${prefix}_BASE_URL on the API and the workers${hint}.`,
  }
}

function matches(pattern: string, model: string): boolean {
  const source = pattern.split('*').map(escape).join('.*')
  return new RegExp(`^${source}$`, 's').test(model)
}

function escape(text: string): string {
  return text.replace(/[.+?^${}()|[\]\\]/g, '\\$&')
}
