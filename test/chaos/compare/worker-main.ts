import { bullmqWorker } from './bullmq.ts'
import { pgBossWorker } from './pg-boss.ts'

/**
 * A worker of one of the other systems as a process. Environment: COMPARE_SYSTEM, COMPARE_SERVER (URL of its Redis or
 * Postgres), COMPARE_UPSTREAM, COMPARE_CONCURRENCY, COMPARE_TIMEOUT_MS (of one HTTP request to the provider).
 */
const env = process.env
const server = env['COMPARE_SERVER'] ?? ''
const upstream = env['COMPARE_UPSTREAM'] ?? ''
const concurrency = Number(env['COMPARE_CONCURRENCY'])
const timeoutMs = Number(env['COMPARE_TIMEOUT_MS'])

if (env['COMPARE_SYSTEM'] === 'bullmq') bullmqWorker(server, upstream, concurrency, timeoutMs)
else await pgBossWorker(server, upstream, concurrency, timeoutMs)
