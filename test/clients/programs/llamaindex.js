import { OpenAI, OpenAIEmbedding } from '@llamaindex/openai'
import { apiKey, collect, one, openaiUrl, run, say } from './about.js'

const model = (headers) =>
  new OpenAI({
    model: 'gpt-4.1',
    apiKey,
    baseURL: openaiUrl,
    maxRetries: 0,
    additionalSessionOptions: { defaultHeaders: headers },
  })
const messages = [{ role: 'user', content: 'weather of llamaindex?' }]
const chunks = await collect(await model(one('stream')).chat({ messages, stream: true }))
const embedding = new OpenAIEmbedding({
  model: 'text-embedding-3-small',
  apiKey,
  baseURL: openaiUrl,
  maxRetries: 0,
  additionalSessionOptions: { defaultHeaders: run('embeddings') },
})
say({
  chat: (await model(one('chat')).chat({ messages })).message.content,
  stream: chunks.map(({ delta }) => delta).join(''),
  embeddings: await embedding.getTextEmbeddings(['one', 'two']),
})
