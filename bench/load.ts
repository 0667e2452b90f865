import type { Bench } from './bench.ts'
import { apiKey, type LoadResult, type LoadSpec } from './load/spec.ts'

const generator = new URL('load/main.ts', import.meta.url).pathname

type Given = Pick<LoadSpec, 'connections' | 'durationMs' | 'request'> &
  Partial<Pick<LoadSpec, 'warmUpMs' | 'rate' | 'limit'>>

/** Runs the load generator, as a process, to its end. */
export async function load(bench: Bench, address: string, given: Given): Promise<LoadResult> {
  const spec: LoadSpec = { address, apiKey, warmUpMs: 0, rate: null, limit: null, ...given }
  const { child, line } = bench.spawn(generator, { args: [await bench.file(spec)] })
  const result = await line(/^\{"perSecond"/, spec.warmUpMs + spec.durationMs + 60_000)
  await child.exited
  return JSON.parse(result) as LoadResult
}

/** As {@link load}, and every answer must be a success. */
export async function cleanLoad(bench: Bench, address: string, given: Given): Promise<LoadResult> {
  const result = await load(bench, address, given)
  if (Object.keys(result.refused).length > 0 || result.accepted === 0) {
    throw new Error(
      `${result.accepted} requests succeeded, and by status these did not: ${JSON.stringify(result.refused)}`,
    )
  }
  return result
}
