import { Queue, type IQueueBackend } from 'bullmq'
import { bullConnection, dispatchId, queueName, type BullConnection, type QueueConnection } from './connection.ts'
import { inOwnWords } from './errors.ts'
import {
  isLoading,
  QueueLoadingError,
  QueueSharedError,
  sharedMessage,
  tellDatabase,
  tellEveryMs,
  tryWrite,
} from './look.ts'
import { within } from './within.ts'

/** A job to hand to BullMQ. Only ids travel: the prompt stays in Postgres. */
export interface DispatchItem {
  id: string
  /** Number of this hand-over. */
  dispatch: number
  lane: string
  /** 0 is first, 9 last. */
  priority: number
}

/** What BullMQ knows of a hand-over. */
export type DispatchState = 'waiting' | 'active' | 'missing'

export interface Dispatcher {
  /** Hands due jobs to BullMQ, by lane. Rejects within seconds when it is away: harmless, the janitor does it later. */
  dispatch(items: readonly DispatchItem[]): Promise<void>
  /** The state of each hand-over, in order. */
  statesOf(items: readonly Pick<DispatchItem, 'id' | 'dispatch' | 'lane'>[]): Promise<DispatchState[]>
  /** Rejects, in our own words, when the queue's server does not answer, refuses what the queue needs, or serves another system with the same prefix. */
  ping(): Promise<void>
  close(): Promise<void>
}

const timeoutMs = 3_000
/** Less than a probe waits for the whole of a readiness. */
const lookMs = 2_500

/** States asked for at once: on Postgres each is a statement of its own, over a pool of four. */
const statesAtOnce = 50

type BullQueue = Queue<null, void, string, null, void, string, IQueueBackend>

interface OpenQueue {
  queue: BullQueue
  connection: BullConnection
}

export interface DispatcherOptions {
  onError: (error: Error) => void
  /** Id of the system's database, once it can be read: on Redis other systems notice by it that they share a prefix. */
  databaseId: () => Promise<string>
  /** Another system was found on the same prefix, with what to do about it; null: it is there no longer. */
  onShared: (reason: string | null) => void
}

/** The lane whose queue every system has. */
const commonLane = 'simulated'

/** A queue that failed to get ready is thrown away: BullMQ never retries that. */
export function openDispatcher(
  connection: QueueConnection,
  { onError, databaseId, onShared }: DispatcherOptions,
): Dispatcher {
  const queues = new Map<string, Promise<OpenQueue>>()
  /** The newest connection of each lane, also while it is being made. */
  const connections = new Map<string, BullConnection>()
  let shared = false

  const open = async (lane: string): Promise<OpenQueue> => {
    const bull = bullConnection(connection, 'producer', 4, onError)
    connections.set(lane, bull)
    const queue: BullQueue = new Queue<null, void, string, null, void, string, IQueueBackend>(
      queueName(lane),
      {
        ...bull.options,
        skipWaitingForReady: true,
        streams: { events: { maxLen: 100 } },
        defaultJobOptions: { attempts: 1, removeOnComplete: true, removeOnFail: true },
      },
      bull.backend,
    )
    queue.on('error', onError)
    try {
      await within(queue.waitUntilReady(), timeoutMs, 'connecting to BullMQ')
      return { queue, connection: bull }
    } catch (error) {
      const reason = await whyNot(bull, error)
      await closeQueue({ queue, connection: bull })
      throw reason
    }
  }

  const get = (lane: string): Promise<OpenQueue> => {
    const known = queues.get(lane)
    if (known !== undefined) return known
    const opening = open(lane)
    queues.set(lane, opening)
    opening.catch(() => queues.delete(lane))
    return opening
  }

  let ownId: string | null = null
  let closed = false
  const tell = async (): Promise<void> => {
    if (connection.kind === 'postgres') return
    ownId ??= await databaseId()
    if (closed) return
    const { redis } = (await get(commonLane)).connection
    if (redis === null) return
    const others = await within(tellDatabase(redis, connection.prefix, ownId), timeoutMs, 'telling of our database')
    if (others.length > 0 === shared) return
    shared = others.length > 0
    onShared(shared ? sharedMessage : null)
  }
  let isTelling = false
  const tellQuietly = (): void => {
    if (isTelling) return
    isTelling = true
    // What fails here is noticed by whoever needs the queue.
    void tell()
      .catch(() => undefined)
      .finally(() => (isTelling = false))
  }
  const telling = setInterval(tellQuietly, tellEveryMs).unref()
  tellQuietly()

  const look = async (): Promise<void> => {
    const { queue, connection: connected } = await get(commonLane)
    const { redis } = connected
    if (connection.kind !== 'postgres' && redis !== null) await tryWrite(redis, connection.prefix)
    await queue.getJobState('ping')
  }

  return {
    async dispatch(items) {
      const byLane = new Map<string, DispatchItem[]>()
      for (const item of items) byLane.set(item.lane, [...(byLane.get(item.lane) ?? []), item])
      await Promise.all(
        [...byLane].map(async ([lane, group]) => {
          const { queue, connection: connected } = await get(lane)
          const jobs = group.map(({ id, dispatch, priority }) => ({
            name: 'call',
            data: null,
            // 0 would beat every other priority.
            opts: { jobId: dispatchId(id, dispatch), priority: priority + 1 },
          }))
          const [first, ...others] = jobs
          if (first === undefined) return
          // A single one needs no transaction around it, which would cost a waiting caller another trip or two.
          const adding = others.length === 0 ? queue.add(first.name, first.data, first.opts) : queue.addBulk(jobs)
          await within<unknown>(adding, timeoutMs, 'handing jobs to BullMQ').catch(async (error: unknown) => {
            throw await whyNot(connected, error)
          })
        }),
      )
    },
    async statesOf(items) {
      const stateOf = async ({ id, dispatch, lane }: (typeof items)[number]): Promise<DispatchState> => {
        const { queue } = await get(lane)
        const state = await queue.getJobState(dispatchId(id, dispatch))
        if (state === 'active') return 'active'
        return state === 'unknown' || state === 'completed' || state === 'failed' ? 'missing' : 'waiting'
      }
      const states: DispatchState[] = []
      for (let from = 0; from < items.length; from += statesAtOnce) {
        const chunk = Promise.all(items.slice(from, from + statesAtOnce).map(stateOf))
        states.push(...(await within(chunk, timeoutMs, 'asking BullMQ for job states')))
      }
      return states
    },
    async ping() {
      try {
        await within(look(), lookMs, 'asking the queue')
      } catch (error) {
        throw await whyNot(connections.get(commonLane) ?? null, error)
      }
      if (shared) throw new QueueSharedError()
    },
    async close() {
      closed = true
      clearInterval(telling)
      const settled = await Promise.allSettled(queues.values())
      queues.clear()
      const opened = settled.filter((entry) => entry.status === 'fulfilled')
      await Promise.all(opened.map(({ value }) => closeQueue(value)))
    },
  }
}

/** Why the server could not be worked with, rather than how long that took. */
async function whyNot(connected: BullConnection | null, error: unknown): Promise<Error> {
  if (connected !== null && (await isLoading(connected.redis))) return new QueueLoadingError()
  return connected?.failure() ?? inOwnWords(error as Error)
}

async function closeQueue({ queue, connection }: OpenQueue): Promise<void> {
  await within(queue.close(), timeoutMs, 'closing a queue').catch(() => undefined)
  await connection.close()
}
