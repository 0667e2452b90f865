import Anthropic from '@anthropic-ai/sdk'
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod'
import { z } from 'zod'
import { anthropicUrl, apiKey, one, run, say } from './about.js'

const anthropic = new Anthropic({ baseURL: anthropicUrl, apiKey, maxRetries: 0 })
const asked = {
  model: 'claude-sonnet-4-0',
  max_tokens: 100,
  messages: [{ role: 'user', content: 'weather of anthropic?' }],
}
const weather = betaZodTool({
  name: 'weather',
  description: 'The weather of a city',
  inputSchema: z.object({ city: z.string() }),
  run: ({ city }) => `sunny in ${city}`,
})
const answer = await anthropic.beta.messages.toolRunner({ ...asked, tools: [weather] }, { headers: run('runner') })
const beta = await anthropic.beta.messages.create(
  { ...asked, betas: ['context-1m-2025-08-07'] },
  { headers: one('beta') },
)
say({ runner: answer.content, beta: beta.content })
