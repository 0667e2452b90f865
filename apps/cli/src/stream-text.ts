import { createSplitter, readEvent } from '@askonce/core'

interface Piece {
  type?: string
  delta?: string | { text?: string }
  choices?: { index?: number; delta?: { content?: string | null } }[]
}

/** What a model said, out of the server-sent events of a stored stream; the events themselves where no words are found. */
export function streamText(transcript: Buffer): string {
  const splitter = createSplitter()
  const events = [...splitter.push(transcript), splitter.rest()]
  const texts: string[] = []
  const say = (index: number, text: unknown): void => {
    if (typeof text === 'string') texts[index] = (texts[index] ?? '') + text
  }
  for (const event of events) {
    const { type, delta, choices } = parse(readEvent(event).data)
    if (Array.isArray(choices)) for (const choice of choices) say(choice.index ?? 0, choice.delta?.content)
    else if (type === 'response.output_text.delta') say(0, delta)
    else if (type === 'content_block_delta' && typeof delta === 'object') say(0, delta.text)
  }
  const said = texts.filter((text) => text !== '')
  return said.length > 0 ? said.join('\n') : transcript.toString('utf8')
}

/** `[DONE]` and comments hold nothing. */
function parse(data: string | null): Piece {
  try {
    const value: unknown = JSON.parse(data ?? '{}')
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    return {}
  }
}
