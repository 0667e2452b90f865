import type { Operation } from './job.ts'
import type { RoutableLane } from './route.ts'

const spoken: Record<RoutableLane['kind'], readonly Operation[]> = {
  openai: ['chat.completions', 'responses', 'embeddings'],
  anthropic: ['messages'],
  simulated: ['chat.completions', 'responses', 'embeddings', 'messages'],
}

/** Whether providers of this kind have the operation. */
export function speaks(kind: RoutableLane['kind'], operation: Operation): boolean {
  return spoken[kind].includes(operation)
}
