import { count, relative } from './format.ts'
import type { Client } from './http.ts'
import type { Job } from './job.ts'
import { stateStyle } from './job-view.ts'
import { jobStates } from '@askonce/core'
import { table, type Column } from './table.ts'

interface Page {
  data: Job[]
  has_more: boolean
  next_cursor: string | null
}

const pageSize = 100

/** The id of the job that has a key now; null: none. */
export async function findByKey(client: Client, key: string): Promise<string | null> {
  const path = `/v1/jobs?key=${encodeURIComponent(key)}`
  const { data } = await client.json<{ data: Pick<Job, 'id'>[] }>({ method: 'GET', path })
  return data[0]?.id ?? null
}

/** Metadata as the list takes it. */
export function metadataQuery(metadata: Record<string, string> | undefined): string[] {
  return Object.entries(metadata ?? {}).map(([name, value]) => `${name}=${value}`)
}

/** Jobs of a list, in its order, read page by page as they are asked for; after the last one, whether there are more. */
export async function* readJobs(
  client: Client,
  filter: Record<string, string | readonly string[] | undefined>,
  limit = Number.POSITIVE_INFINITY,
): AsyncGenerator<Job, boolean> {
  let read = 0
  let cursor: string | null = null
  for (;;) {
    const query = new URLSearchParams({ limit: String(Math.min(pageSize, limit - read)) })
    for (const [name, value] of Object.entries(filter)) {
      for (const one of [value ?? []].flat()) query.append(name, one)
    }
    if (cursor !== null) query.set('cursor', cursor)
    const page: Page = await client.json<Page>({ method: 'GET', path: `/v1/jobs?${query.toString()}` })
    yield* page.data
    read += page.data.length
    cursor = page.next_cursor
    if (!page.has_more || cursor === null || read >= limit) return page.has_more
  }
}

/** Only where a job of the list waits for something. */
const waitsFor: Column<Job> = {
  title: 'WAITS FOR',
  value: ({ waiting_for: waits }) => {
    if (waits === null) return '-'
    return waits.kind === 'schedule'
      ? relative(waits.until)
      : `${waits.kind === 'tenant_limit' ? '' : `${waits.kind} `}${waits.name}`
  },
  drops: 4,
}

export function jobTable(jobs: readonly Job[]): string {
  return table<Job>(
    [
      { title: 'ID', value: ({ id }) => id },
      { title: 'STATE', value: ({ state }) => state, style: ({ state }) => stateStyle(state) },
      { title: 'PAID', value: ({ usage }) => paidOf(usage), right: true },
      { title: 'CREATED', value: ({ created_at: created }) => relative(created), drops: 2 },
      { title: 'EXPIRES', value: ({ expires_at: expires }) => relative(expires), drops: 1 },
      ...(jobs.some(({ waiting_for: waits }) => waits !== null) ? [waitsFor] : []),
      { title: 'ERROR', value: ({ error }) => error?.code ?? '-', drops: 3 },
      { title: 'KEY', value: ({ key }) => key, shrinks: true },
    ],
    jobs,
  )
}

function paidOf({ paid_attempts: paid, maybe_paid_attempts: maybe }: Job['usage']): string {
  return maybe > 0 ? `${paid} (${maybe}?)` : String(paid)
}

/** `3 jobs: 2 succeeded, 1 uncertain`. */
export function totalsOf(jobs: readonly Pick<Job, 'state'>[]): string {
  const byState = jobStates.map((state) => [state, jobs.filter((job) => job.state === state).length] as const)
  const parts = byState.filter(([, amount]) => amount > 0).map(([state, amount]) => `${amount} ${state}`)
  return `${count(jobs.length, 'job')}: ${parts.join(', ')}`
}
