// The stock OpenAI SDK with Askonce behind it. Nothing here is ours but the address, the key of the API, and one header.
//   OPENAI_BASE_URL=http://127.0.0.1:8787/openai/v1 OPENAI_API_KEY=<key> node --import tsx examples/sdk-openai.ts [model]
import OpenAI from 'openai'

const openai = new OpenAI()
const model = process.argv[2] ?? 'simulated/small'

/** Says whether this run asked the provider, or got the stored answer. */
function tell(response: Response, key: string, text: string): void {
  const stored = response.headers.get('idempotent-replayed') === 'true'
  console.log(`${stored ? 'stored' : 'asked '} ${key}: ${text.slice(0, 40)}`)
}

for (const planet of ['Mars', 'Venus', 'Neptune']) {
  const key = `example/tour/${planet}`
  const { data, response } = await openai.chat.completions
    .create(
      { model, messages: [{ role: 'user', content: `Why go to ${planet}?` }] },
      { headers: { 'Idempotency-Key': key } },
    )
    .withResponse()
  tell(response, key, data.choices[0]?.message.content ?? '')
}

// A stream of a stored answer is the same events again.
const key = 'example/tour/stream'
const { data: stream, response } = await openai.chat.completions
  .create(
    { model, stream: true, messages: [{ role: 'user', content: 'Why go anywhere?' }] },
    { headers: { 'Idempotency-Key': key } },
  )
  .withResponse()
let text = ''
for await (const { choices } of stream) text += choices[0]?.delta.content ?? ''
tell(response, key, text)

// Without a key of your own: equal requests share one.
const embedded = await openai.embeddings
  .create({ model, input: 'red dust' }, { headers: { 'Askonce-Key': 'derive' } })
  .withResponse()
tell(embedded.response, 'a derived key', `${embedded.data.data[0]?.embedding.length} numbers`)
