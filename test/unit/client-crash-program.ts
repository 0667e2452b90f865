import { withIdempotency } from '@askonce/client'
import { fileKeyStore } from '@askonce/client/node'
import OpenAI from 'openai'

// Asks one question and says what came; without an answer it waits to be killed.
const [baseURL = '', path = ''] = process.argv.slice(2)
const store = fileKeyStore(path)
const client = new OpenAI({ baseURL, apiKey: 'test', fetch: withIdempotency(fetch, { store }) })
const completion = await client.chat.completions.create({
  model: 'gpt-test',
  messages: [{ role: 'user', content: 'once' }],
})
process.stdout.write(`answered ${completion.id}\n`)
await store.close()
