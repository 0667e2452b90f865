import { Queue, type IQueueBackend } from 'bullmq'
import { bullConnection, queueName, type BullConnection, type QueueConnection } from './connection.ts'
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

export interface Waker {
  /**
   * Tells the workers of these lanes that there is work, after the commit that made it. Returns at once and never fails: nothing depends on a
   * wake-up, since workers look by themselves every second. What is said of a lane while a wake-up of it is on its way is one more.
   */
  wake(lanes: readonly string[]): void
  /** Rejects, in our own words, when the queue's server does not answer, refuses what the queue needs, or serves another system with the same prefix. */
  ping(): Promise<void>
  /** Waits briefly for what is on its way. */
  close(): Promise<void>
}

const timeoutMs = 3_000
/** How long the last wake-ups of a process may take. */
const flushMs = 2_000
/** Less than a probe waits for the whole of a readiness. */
const lookMs = 2_500

/**
 * The ids of a lane's wake-ups, in turn: of those that wait each stands there once, so a queue holds no more for a million jobs than for
 * ten. An id whose wake-up is being taken is ignored by BullMQ, which loses nothing: the claim begins after it has been taken. One
 * that a dead worker has taken stays so for a minute; then the other ids do.
 */
const idsOfLane = 8

type BullQueue = Queue<null, void, string, null, void, string, IQueueBackend>

interface OpenQueue {
  queue: BullQueue
  connection: BullConnection
}

export interface WakerOptions {
  onError: (error: Error) => void
  /** What became of a wake-up: an error, or null. */
  onSent?: (error: unknown) => void
  /** Id of the system's database, once it can be read: on Redis other systems notice by it that they share a prefix. */
  databaseId: () => Promise<string>
  /** Another system was found on the same prefix, with what to do about it; null: it is there no longer. */
  onShared: (reason: string | null) => void
}

/** The lane whose queue every system has. */
const commonLane = 'simulated'

/** A queue that failed to get ready is thrown away: BullMQ never retries that. */
export function openWaker(
  connection: QueueConnection,
  { onError, onSent = () => undefined, databaseId, onShared }: WakerOptions,
): Waker {
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

  let turn = Math.floor(Math.random() * idsOfLane)
  const send = async (lane: string): Promise<void> => {
    const { queue, connection: connected } = await get(lane)
    turn = (turn + 1) % idsOfLane
    await within<unknown>(queue.add('wake', null, { jobId: `wake-${turn}` }), timeoutMs, 'waking workers').catch(
      async (error: unknown) => {
        throw await whyNot(connected, error)
      },
    )
  }
  /** Lanes with a wake-up on its way, and those of them that want another one behind it. */
  const underWay = new Map<string, Promise<void>>()
  const again = new Set<string>()
  const wakeLane = (lane: string): void => {
    if (underWay.has(lane)) {
      again.add(lane)
      return
    }
    const sending = send(lane)
      .then(() => onSent(null), onSent)
      .finally(() => {
        underWay.delete(lane)
        if (again.delete(lane) && !closed) wakeLane(lane)
      })
    underWay.set(lane, sending)
  }

  return {
    wake(lanes) {
      if (!closed) for (const lane of lanes) wakeLane(lane)
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
      await within(Promise.all(underWay.values()), flushMs, 'the last wake-ups').catch(() => undefined)
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
