// Vercel's AI SDK: `node ai.js 5`, 6 or 7, each with the providers that belong to it.
import { z } from 'zod'
import { anthropicUrl, apiKey, collect, one, openaiUrl, run, say } from './about.js'

const version = Number(process.argv[2])
const { embedMany, generateText, stepCountIs, isStepCount, streamText, tool } = await import(`ai${version}`)
const { createOpenAI } = await import(`ai-sdk-openai-${version - 3}`)
const { createAnthropic } = await import(`ai-sdk-anthropic-${version - 3}`)
const { createOpenAICompatible } = await import(`ai-sdk-compatible-${version - 4}`)

const openai = createOpenAI({ baseURL: openaiUrl, apiKey })
const compatible = createOpenAICompatible({ name: 'askonce', baseURL: openaiUrl, apiKey })
const anthropic = createAnthropic({ baseURL: `${anthropicUrl}/v1`, apiKey })

const weather = tool({
  description: 'The weather of a city',
  inputSchema: z.object({ city: z.string() }),
  execute: ({ city }) => `sunny in ${city}`,
})
const results = {}
const models = {
  responses: openai('gpt-4.1'),
  chat: openai.chat('gpt-4.1'),
  compatible: compatible('gpt-4.1'),
  anthropic: anthropic('claude-sonnet-4-0'),
}
for (const [name, model] of Object.entries(models)) {
  const asked = { model, maxRetries: 0, prompt: `weather of ${name}?` }
  results[`${name} text`] = (await generateText({ ...asked, headers: one(`${name}/text`) })).text
  const stream = streamText({
    ...asked,
    headers: one(`${name}/stream`),
    onError: ({ error }) => {
      throw error
    },
  })
  results[`${name} stream`] = (await collect(stream.textStream)).join('')
  const agent = await generateText({
    ...asked,
    tools: { weather },
    stopWhen: (isStepCount ?? stepCountIs)(4),
    headers: run(`${name}/agent`),
  })
  results[`${name} agent`] = [agent.steps.length, agent.text]
  const streamed = streamText({
    ...asked,
    tools: { weather },
    stopWhen: (isStepCount ?? stepCountIs)(4),
    headers: run(`${name}/streamed-agent`),
  })
  results[`${name} streamed agent`] = [(await collect(streamed.textStream)).join(''), (await streamed.steps).length]
}
const values = Array.from({ length: 2100 }, (_, n) => `value ${n}`)
const { embeddings } = await embedMany({
  model: openai.embedding('text-embedding-3-small'),
  maxRetries: 0,
  values,
  headers: run('embed-many'),
})
results['embedMany'] = [embeddings.length, embeddings[0]]
say(results)
