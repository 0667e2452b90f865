import type { LaneConfig } from './config.ts'
import type { ConfigFile } from './file.ts'
import { readKey } from './readers.ts'
import type { Environment } from './variables.ts'

/** The lanes of the configuration file with their keys taken from `env`; `problems` name the keys that are not there. */
export function fileLanes(file: string, lanes: ConfigFile['lanes'], env: Readonly<Record<string, string | undefined>>) {
  const problems: string[] = []
  const resolved = lanes.map((lane, index): LaneConfig => {
    const { name, kind, base_url: baseUrl, api_key_env: variable, models } = lane
    const lookUp = lane.look_up === 'stored'
    if (variable === undefined) return { name, kind, baseUrl, models, lookUp, apiKey: null }
    const reading = readKey(env[variable]?.trim() ?? '', 1, 4096)
    if ('value' in reading) return { name, kind, baseUrl, models, lookUp, apiKey: reading.value }
    problems.push(`${variable}, named by ${file} /lanes/${index}/api_key_env, is not set to ${reading.expected}`)
    return { name, kind, baseUrl, models, lookUp, apiKey: null }
  })
  return { lanes: resolved, problems }
}

/**
 * The built-in lanes. A key or a base URL turns a provider on (Ollama needs no key); the simulated lane is always
 * there. They claim no model by pattern: routing knows them by name.
 */
export function builtInLanes(env: Environment): LaneConfig[] {
  const lanes: LaneConfig[] = []
  const { ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL, OPENAI_API_KEY, OPENAI_BASE_URL } = env
  if (ANTHROPIC_API_KEY || ANTHROPIC_BASE_URL) {
    const baseUrl = ANTHROPIC_BASE_URL ?? 'https://api.anthropic.com'
    lanes.push({ name: 'anthropic', kind: 'anthropic', baseUrl, apiKey: ANTHROPIC_API_KEY, models: [], lookUp: false })
  }
  if (OPENAI_API_KEY || OPENAI_BASE_URL) {
    const baseUrl = OPENAI_BASE_URL ?? 'https://api.openai.com/v1'
    const lookUp = env.OPENAI_LOOK_UP === 'stored'
    lanes.push({ name: 'openai', kind: 'openai', baseUrl, apiKey: OPENAI_API_KEY, models: [], lookUp })
  }
  return [...lanes, { name: 'simulated', kind: 'simulated', baseUrl: null, apiKey: null, models: [], lookUp: false }]
}
