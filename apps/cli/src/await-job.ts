import { setTimeout as sleep } from 'node:timers/promises'
import { isSettled } from '@askonce/core'
import type { Client } from './http.ts'
import { readJob, type AnsweredJob } from './job.ts'

/** Longest wait that the server grants one request, in seconds. */
export const maxWaitSeconds = 60

export interface ShownJob extends AnsweredJob {
  /** The JSON that the server sent. */
  text: string
}

/** Reads a job; waits up to `waitSeconds`, in as many requests as that takes, until nothing more happens to it by itself. */
export async function awaitJob(client: Client, id: string, waitSeconds: number): Promise<ShownJob> {
  const until = performance.now() + waitSeconds * 1000
  for (;;) {
    const left = Math.max(0, Math.round((until - performance.now()) / 1000))
    const wait = Math.min(maxWaitSeconds, left)
    const path = `/v1/jobs/${encodeURIComponent(id)}${wait > 0 ? `?wait=${wait}` : ''}`
    const { bytes } = await client.send({ method: 'GET', path, waitSeconds: wait })
    const shown = parseShown(bytes)
    if (isSettled(shown.job.state) || performance.now() > until - 500) return shown
    // A server that is draining answers before the wait is over.
    await sleep(200)
  }
}

export function parseShown(bytes: Buffer): ShownJob {
  const text = bytes.toString('utf8')
  return { ...readJob(text), text }
}
