import { startUpstream } from './upstream.ts'

/**
 * The counting upstream as a process of its own, for tests that kill everything else.
 * Environment: UPSTREAM_PORT (free one), UPSTREAM_LATENCY_MS, UPSTREAM_ANSWER_BYTES, UPSTREAM_CHUNKS, UPSTREAM_CHUNK_DELAY_MS. Its first line of output is
 * `{"url": …}`; SIGTERM and SIGINT end it.
 */
const env = process.env
const upstream = await startUpstream({
  port: Number(env['UPSTREAM_PORT'] ?? 0),
  latencyMs: Number(env['UPSTREAM_LATENCY_MS'] ?? 0),
  answerBytes: Number(env['UPSTREAM_ANSWER_BYTES'] ?? 64),
  chunks: Number(env['UPSTREAM_CHUNKS'] ?? 4),
  chunkDelayMs: Number(env['UPSTREAM_CHUNK_DELAY_MS'] ?? 0),
})
process.stdout.write(`${JSON.stringify({ url: upstream.url })}\n`)
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    void upstream.close()
  })
}
