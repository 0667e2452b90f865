import { setTimeout as sleep } from 'node:timers/promises'
import { followRecord, openRecord } from '../record.ts'
import { askonceBackend } from './askonce.ts'
import type { Backend } from './backend.ts'
import { bullmqBackend } from './bullmq.ts'
import { pgBossBackend } from './pg-boss.ts'
import type { Line } from './tally.ts'

/**
 * The producer of the comparison, the same for all systems. Killed and started again, it submits all that it had once
 * more, as a program does that only knows its list of questions. SIGTERM: no new keys; it ends when all have ended, or
 * after COMPARE_DRAIN_MS.
 *
 * Environment: COMPARE_SYSTEM, COMPARE_SERVER (URL of the Redis, the Postgres or the API), COMPARE_RECORD (path),
 * COMPARE_RATE (new keys a second), COMPARE_DRAIN_MS, COMPARE_POLICY (of Askonce, `on_uncertain`).
 */
const env = process.env
const path = env['COMPARE_RECORD'] ?? ''
const rate = Number(env['COMPARE_RATE'])
const drainMs = Number(env['COMPARE_DRAIN_MS'])
const lookEveryMs = 250
const atOnce = 20

const had = new Set(followRecord<Line>(path)().map(({ key }) => key))
const record = openRecord<Line>(path)
/** Accepted, and not seen to end since this process started. */
const waiting = new Set<string>()
const stopping = new AbortController()
process.once('SIGTERM', () => stopping.abort())

async function openBackend(): Promise<Backend> {
  const server = env['COMPARE_SERVER'] ?? ''
  switch (env['COMPARE_SYSTEM']) {
    case 'bullmq':
      return bullmqBackend(server)
    case 'pg-boss':
      return await pgBossBackend(server)
    default:
      return askonceBackend(server, env['COMPARE_POLICY'] ?? 'rerun')
  }
}

async function insist(backend: Backend, key: string): Promise<void> {
  for (;;) {
    try {
      await backend.submit(key)
      await record.append([{ type: 'accepted', key, at: Date.now() }])
      waiting.add(key)
      return
    } catch {
      await sleep(200 + 300 * Math.random())
    }
  }
}

/** Runs `each` over the list, twenty at a time. */
async function inParts(list: readonly string[], each: (key: string) => Promise<void>): Promise<void> {
  for (let from = 0; from < list.length; from += atOnce) await Promise.all(list.slice(from, from + atOnce).map(each))
}

async function look(backend: Backend, key: string): Promise<void> {
  const { how, sha } = await backend.read(key).catch(() => ({ how: 'open' as const, sha: null }))
  if (how === 'open') return
  waiting.delete(key)
  await record.append([{ type: 'ended', key, at: Date.now(), how, sha }])
}

async function watch(backend: Backend): Promise<void> {
  let stoppedAt = Infinity
  while (!stopping.signal.aborted || (waiting.size > 0 && performance.now() - stoppedAt < drainMs)) {
    if (stopping.signal.aborted && stoppedAt === Infinity) stoppedAt = performance.now()
    await inParts([...waiting], (key) => look(backend, key))
    await sleep(lookEveryMs)
  }
}

async function produce(backend: Backend): Promise<void> {
  const open = new Set<Promise<void>>()
  for (let count = had.size; !stopping.signal.aborted; count += 1) {
    const key = `q-${count}`
    await record.append([{ type: 'asked', key, at: Date.now() }])
    const one = insist(backend, key).finally(() => open.delete(one))
    open.add(one)
    await sleep(1_000 / rate)
  }
  await Promise.all(open)
}

const backend = await openBackend()
await Promise.all([inParts([...had], (key) => insist(backend, key)), produce(backend), watch(backend)])
await backend.close()
