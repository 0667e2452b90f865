type Value = Record<string, unknown>

/** What a model said, out of the answers of the four operations; anything else as indented JSON. */
export function answerText(response: string): string {
  let answer: Value
  try {
    answer = JSON.parse(response) as Value
  } catch {
    return response
  }
  const found = [
    ...list(answer['choices']).map((choice) => object(choice['message'])['content']),
    ...list(answer['content']).map(({ text }) => text),
    ...list(answer['output']).flatMap((item) => list(item['content']).map(({ text }) => text)),
  ]
  const texts = found.filter((text): text is string => typeof text === 'string' && text !== '')
  return texts.length > 0 ? texts.join('\n') : JSON.stringify(answer, null, 2)
}

function object(value: unknown): Value {
  return typeof value === 'object' && value !== null ? (value as Value) : {}
}

function list(value: unknown): Value[] {
  return Array.isArray(value) ? value.map(object) : []
}
