import { Agent } from '@mastra/core/agent'
import { createTool } from '@mastra/core/tools'
import { createOpenAI } from 'ai-sdk-openai-3'
import { z } from 'zod'
import { apiKey, collect, openaiUrl, run, say } from './about.js'

const openai = (headers) => createOpenAI({ baseURL: openaiUrl, apiKey, headers })
const weather = createTool({
  id: 'weather',
  description: 'The weather of a city',
  inputSchema: z.object({ city: z.string() }),
  outputSchema: z.object({ weather: z.string() }),
  execute: async ({ city }) => ({ weather: `sunny in ${city}` }),
})
const agent = (name) =>
  new Agent({
    id: name,
    name,
    instructions: 'Say the weather.',
    model: openai(run(name)).chat('gpt-4.1'),
    tools: { weather },
  })
const settings = { maxSteps: 4, modelSettings: { maxRetries: 0 } }
const whole = await agent('generate').generate('weather of mastra?', settings)
const streamed = await agent('stream').stream('weather of mastra streamed?', settings)
say({ generate: whole.text, stream: (await collect(streamed.textStream)).join('') })
