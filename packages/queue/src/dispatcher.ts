import { Queue, type IQueueBackend } from 'bullmq'
import { bullConnection, dispatchId, queueName, type BullConnection, type QueueConnection } from './connection.ts'
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
  /** Rejects when BullMQ's server does not answer. */
  ping(): Promise<void>
  close(): Promise<void>
}

const timeoutMs = 3_000

/** States asked for at once: on Postgres each is a statement of its own, over a pool of four. */
const statesAtOnce = 50

type BullQueue = Queue<null, void, string, null, void, string, IQueueBackend>

interface OpenQueue {
  queue: BullQueue
  connection: BullConnection
}

/** Nothing is connected before the first use, and a queue that failed to get ready is thrown away: BullMQ never retries that. */
export function openDispatcher(
  connection: QueueConnection,
  { onError }: { onError: (error: Error) => void },
): Dispatcher {
  const queues = new Map<string, Promise<OpenQueue>>()

  const open = async (lane: string): Promise<OpenQueue> => {
    const bull = bullConnection(connection, 'producer', 4, onError)
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
      await closeQueue({ queue, connection: bull })
      throw error
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

  return {
    async dispatch(items) {
      const byLane = new Map<string, DispatchItem[]>()
      for (const item of items) byLane.set(item.lane, [...(byLane.get(item.lane) ?? []), item])
      await Promise.all(
        [...byLane].map(async ([lane, group]) => {
          const { queue } = await get(lane)
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
          await within<unknown>(adding, timeoutMs, 'handing jobs to BullMQ')
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
      const { queue } = await get('simulated')
      await within(queue.getJobState('ping'), timeoutMs, 'asking BullMQ')
    },
    async close() {
      const settled = await Promise.allSettled(queues.values())
      queues.clear()
      const opened = settled.filter((entry) => entry.status === 'fulfilled')
      await Promise.all(opened.map(({ value }) => closeQueue(value)))
    },
  }
}

async function closeQueue({ queue, connection }: OpenQueue): Promise<void> {
  await within(queue.close(), timeoutMs, 'closing a queue').catch(() => undefined)
  await connection.close()
}
