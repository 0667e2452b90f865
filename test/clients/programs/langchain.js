import { ChatAnthropic } from '@langchain/anthropic'
import { tool } from '@langchain/core/tools'
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai'
import { z } from 'zod'
import { anthropicUrl, apiKey, collect, one, openaiUrl, run, say } from './about.js'

const openai = (headers, more = {}) =>
  new ChatOpenAI({
    model: 'gpt-4.1',
    apiKey,
    maxRetries: 0,
    configuration: { baseURL: openaiUrl, defaultHeaders: headers },
    ...more,
  })
const anthropic = (headers) =>
  new ChatAnthropic({
    model: 'claude-sonnet-4-0',
    apiKey,
    anthropicApiUrl: anthropicUrl,
    maxRetries: 0,
    clientOptions: { defaultHeaders: headers },
  })
const weather = tool(({ city }) => `sunny in ${city}`, {
  name: 'weather',
  description: 'The weather of a city',
  schema: z.object({ city: z.string() }),
})

async function agent(model, prompt) {
  const bound = model.bindTools([weather])
  const messages = [{ role: 'user', content: prompt }]
  for (let step = 1; step < 4; step += 1) {
    const answer = await bound.invoke(messages)
    if (answer.tool_calls.length === 0) return [step, answer.text]
    messages.push(answer, ...(await Promise.all(answer.tool_calls.map((call) => weather.invoke(call)))))
  }
}

const results = {}
const makers = {
  chat: openai,
  responses: (headers) => openai(headers, { useResponsesApi: true }),
  anthropic,
}
for (const [name, make] of Object.entries(makers)) {
  const prompt = `weather of langchain ${name}?`
  results[`${name} invoke`] = (await make(one(`${name}/invoke`)).invoke(prompt)).text
  const chunks = await collect(await make(one(`${name}/stream`)).stream(prompt))
  results[`${name} stream`] = chunks.map((chunk) => chunk.text).join('')
  results[`${name} agent`] = await agent(make(run(`${name}/agent`)), prompt)
}
const embeddings = new OpenAIEmbeddings({
  model: 'text-embedding-3-small',
  apiKey,
  maxRetries: 0,
  batchSize: 2,
  configuration: { baseURL: openaiUrl, defaultHeaders: run('embed-documents') },
})
results['embedDocuments'] = await embeddings.embedDocuments(['one', 'two', 'three', 'four', 'five'])
say(results)
