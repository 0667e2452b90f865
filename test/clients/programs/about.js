// What every program here starts with: where Askonce is, and under which scope it asks. A program makes its calls, prints
// what it got as one line of JSON, and is run twice.

export const { ASKONCE: server, ASKONCE_API_KEY: apiKey, SCOPE: scope } = process.env
export const openaiUrl = `${server}/openai/v1`
export const anthropicUrl = `${server}/anthropic`

/** One key for one call. */
export const one = (name) => ({ 'Idempotency-Key': `${scope}/${name}` })
/** One scope for a run of several calls: each has the key `<scope>/<fingerprint>`. */
export const run = (name) => ({ 'Idempotency-Key': `${scope}/${name}`, 'Askonce-Key': 'derive' })

export const say = (results) => process.stdout.write(`${JSON.stringify(results)}\n`)

export async function collect(stream) {
  const parts = []
  for await (const part of stream) parts.push(part)
  return parts
}
