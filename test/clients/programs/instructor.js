import instructor from '@instructor-ai/instructor'
import OpenAI from 'openai'
import { z } from 'zod/v3'
import { apiKey, one, openaiUrl, say } from './about.js'

const create = instructor.default ?? instructor
const client = create({
  client: new OpenAI({ baseURL: openaiUrl, apiKey, maxRetries: 0, defaultHeaders: one('city') }),
  mode: 'TOOLS',
})
const city = await client.chat.completions.create({
  model: 'gpt-4.1',
  messages: [{ role: 'user', content: 'weather of instructor?' }],
  response_model: { schema: z.object({ city: z.string() }), name: 'weather' },
})
say({ city: city.city })
