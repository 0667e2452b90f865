import { Agent, run as runAgent, setDefaultOpenAIClient, setOpenAIAPI, setTracingDisabled, tool } from '@openai/agents'
import OpenAI from 'openai'
import { z } from 'zod'
import { apiKey, collect, openaiUrl, run, say } from './about.js'

setTracingDisabled(true)
const weather = tool({
  name: 'weather',
  description: 'The weather of a city',
  parameters: z.object({ city: z.string() }),
  execute: ({ city }) => `sunny in ${city}`,
})
const results = {}
for (const api of ['responses', 'chat_completions']) {
  setOpenAIAPI(api)
  const client = (name) =>
    new OpenAI({ baseURL: openaiUrl, apiKey, maxRetries: 0, defaultHeaders: run(`${api}/${name}`) })
  const agent = new Agent({ name: 'weatherman', instructions: 'Say the weather.', model: 'gpt-4.1', tools: [weather] })
  setDefaultOpenAIClient(client('run'))
  results[`${api} run`] = (await runAgent(agent, `weather of ${api}?`)).finalOutput
  setDefaultOpenAIClient(client('stream'))
  const streamed = await runAgent(agent, `weather of ${api} streamed?`, { stream: true })
  await collect(streamed)
  results[`${api} streamed`] = streamed.finalOutput
}
say(results)
