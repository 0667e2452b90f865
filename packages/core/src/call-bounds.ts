import type { Operation } from './job.ts'
import type { JsonObject } from './json.ts'

/** What one call can use at most, as far as its request says it. */
export interface CallBounds {
  /** Tokens of input that the request itself brings. */
  inputTokens: number
  /** It names content that stands elsewhere, a file or an earlier response: then only the model's context bounds the input. */
  isStored: boolean
  /** Tokens of output, reasoning included; null: the request sets no limit. */
  outputTokens: number | null
  /** Answers that are asked for: each may be as long as the limit. */
  answers: number
  /** It has tools that the provider runs: each round of them is paid for as a call of its own, in a number that nobody bounds. */
  isOpenEnded: boolean
  /** It asks for a tier or a place of processing that has prices of its own. */
  hasOwnTariff: boolean
}

/**
 * What a provider adds by itself: the frame of the conversation, and the instructions for tools and for answers in JSON. Published are up to 735
 * tokens for the use of tools at Anthropic and fewer than 20 for a frame at OpenAI.
 */
const requestTokens = 1_024
/** Tools that the provider defines and the client runs (an editor, a shell, a screen) bring their description: up to 735 tokens are published. */
const definedToolTokens = 1_024
/**
 * The dearest image there is: gpt-4o-mini counts 2,833 tokens and 5,667 for each of at most eight tiles, 48,169 in all. Models that count by
 * patches or pixels stay below 10,000.
 */
const imageTokens = 50_000
/** Audio has ten tokens a second. The thinnest MP3 has 8 kbit a second, which are 1,333 characters of base64. */
const audioCharactersPerToken = 64

/** Members of the request that name content which stands at the provider. */
const storedInput = ['previous_response_id', 'conversation', 'prompt', 'container'] as const

/** Tools that the client runs itself, or that only describe something: they bring no input of their own. */
const plainTools = /^(?:function|custom|local_shell|apply_patch|bash_|text_editor_|computer|memory_)/

/**
 * Bounds a call from above. No tokenizer is asked: each token of text stands for at least one byte of it, and the bytes of the request are
 * more than those of its texts. What is not text is counted by its kind.
 *
 * @param bytes length of the request as it is sent
 */
export function boundsOf(operation: Operation, request: JsonObject, bytes: number): CallBounds {
  const media: Media = { tokens: 0, bytes: 0, isStored: false }
  for (const name of ['messages', 'input', 'system', 'prediction'] as const) addMedia(request[name], media)
  const tools = Array.isArray(request['tools']) ? request['tools'] : []
  const types = tools.map((tool) => (isObject(tool) && typeof tool['type'] === 'string' ? tool['type'] : 'function'))
  const defined = types.filter((type) => type !== 'function' && type !== 'custom').length
  return {
    inputTokens: bytes - media.bytes + media.tokens + requestTokens + defined * definedToolTokens,
    isStored: media.isStored || storedInput.some((name) => isGiven(request[name])),
    outputTokens: outputOf(operation, request),
    answers: operation === 'chat.completions' ? (positive(request['n']) ?? 1) : 1,
    isOpenEnded:
      types.some((type) => !plainTools.test(type)) ||
      ['web_search_options', 'mcp_servers', 'plugins'].some((name) => isGiven(request[name])),
    hasOwnTariff:
      !isOneOf(request['service_tier'], ['auto', 'default', 'flex', 'standard', 'standard_only']) ||
      !isOneOf(request['speed'], ['standard']) ||
      !isOneOf(request['inference_geo'], ['global']),
  }
}

/** What is said of the output, by operation; of two limits the larger, since servers differ in which of them they heed. */
function outputOf(operation: Operation, request: JsonObject): number | null {
  if (operation === 'embeddings') return 0
  const names = operation === 'responses' ? ['max_output_tokens'] : ['max_completion_tokens', 'max_tokens']
  const given = names.map((name) => request[name]).filter(isGiven)
  const limits = given.map(positive)
  if (limits.length === 0 || limits.includes(null)) return null
  // What was predicted and did not come is output that is paid for, too.
  const { prediction } = request
  return Math.max(...(limits as number[])) + (isGiven(prediction) ? 3 * JSON.stringify(prediction).length : 0)
}

/** Content that is not text, as it is found. */
interface Media {
  tokens: number
  /** Of the request: those that are data and not text. */
  bytes: number
  isStored: boolean
}

const images = new Set(['image', 'image_url', 'input_image', 'computer_screenshot'])
const sounds = new Set(['audio', 'input_audio'])
const files = new Set(['file', 'input_file', 'document', 'item_reference', 'container_upload', 'video', 'video_url'])

/** Walks through content, as deep as it goes: results of tools hold images too. */
function addMedia(value: unknown, media: Media): void {
  if (Array.isArray(value)) {
    for (const item of value) if (typeof item === 'object') addMedia(item, media)
    return
  }
  if (!isObject(value)) return
  const type = value['type']
  if (typeof type === 'string') {
    if (images.has(type)) {
      media.tokens += imageTokens
      media.bytes += dataBytes(value)
      return
    }
    if (sounds.has(type)) {
      const bytes = dataBytes(value)
      media.bytes += bytes
      media.tokens += Math.ceil(bytes / audioCharactersPerToken)
      return
    }
    if (files.has(type) && !isTextSource(value['source'])) media.isStored = true
  }
  // An earlier answer in sound, which stands at the provider.
  if (value['role'] === 'assistant' && isGiven(value['audio'])) media.isStored = true
  for (const member of Object.values(value)) if (typeof member === 'object') addMedia(member, media)
}

/** A document whose text is in the request. */
function isTextSource(source: unknown): boolean {
  return isObject(source) && (source['type'] === 'text' || source['type'] === 'content')
}

/** The longest text in a part, which is its data or its address: nothing else in it is long, and the rest stays counted as text. */
function dataBytes(part: JsonObject): number {
  const texts = Object.values(part).flatMap((member) => {
    if (typeof member === 'string') return [member.length]
    return isObject(member) ? Object.values(member).map((inner) => (typeof inner === 'string' ? inner.length : 0)) : []
  })
  return Math.max(0, ...texts)
}

function positive(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 ? Math.ceil(value) : null
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null
}

function isOneOf(value: unknown, known: readonly string[]): boolean {
  return !isGiven(value) || known.includes(value as string)
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
