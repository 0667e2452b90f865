import { Worker, type IQueueBackend } from 'bullmq'
import { bullConnection, queueName, type BullConnection, type QueueConnection } from './connection.ts'
import { inOwnWords, isRefusal } from './errors.ts'
import { within } from './within.ts'

/** A worker on either backend; its results carry nothing. */
type BullWorker = Worker<null, void, string, IQueueBackend>

export interface ConsumerOptions {
  lane: string
  /**
   * There is work in the lane. Called when BullMQ does not hold the wake-up any more: one that is sent from then on is a new one, so what is
   * looked for in here is all that was committed before any wake-up that was ignored.
   */
  onWake: () => void
  onError: (error: Error) => void
}

export interface Consumer {
  /** Stops taking wake-ups; one that is on its way may still come. */
  pause(): void
  resume(): void
  /** Stops for good. */
  close(): Promise<void>
}

const readyTimeoutMs = 10_000
const rebuildDelayMs = 1_000
/** BullMQ asks again at once whatever Redis refuses, thousands of times a second: so long it is kept from that. */
const refusedRestMs = 1_000
/** How long a close waits for connecting to end. */
const buildEndsMs = 2_000

/**
 * Takes a lane's wake-ups from BullMQ. A BullMQ worker that first meets its server while that is down stays dead without a
 * word, so this one is thrown away and built again until it is ready.
 */
export function openConsumer(connection: QueueConnection, options: ConsumerOptions): Consumer {
  let current: { worker: BullWorker; bull: BullConnection; isReady: boolean } | null = null
  let paused = false
  let closed = false
  let timer: NodeJS.Timeout | undefined
  let resting = false

  const resumeNow = (): void => {
    if (paused || resting || current?.isReady !== true) return
    current.worker.resume().catch(options.onError)
    // Paused before its first run: resume() alone does not start the loop.
    if (!current.worker.isRunning()) current.worker.run().catch(options.onError)
  }
  const rest = (): void => {
    // One that is not ready takes nothing yet, and is thrown away if it does not get so.
    if (paused || resting || closed || current?.isReady !== true) return
    resting = true
    current.worker.pause(true).catch(options.onError)
    setTimeout(() => {
      resting = false
      if (!closed) resumeNow()
    }, refusedRestMs).unref()
  }
  const build = async (): Promise<void> => {
    const bull = bullConnection(connection, 'consumer', 6, options.onError)
    const onError = (error: Error): void => {
      // The server ended a wait, because it became a replica perhaps: the next command tells.
      if (isRefusal(error) && error.message.startsWith('UNBLOCKED')) return
      options.onError(bull.failure() ?? inOwnWords(error))
      if (isRefusal(error)) rest()
    }
    const worker: BullWorker = new Worker<null, void, string, IQueueBackend>(
      queueName(options.lane),
      () => Promise.resolve(),
      {
        ...bull.options,
        autorun: false,
        concurrency: 1,
        // What a dead worker has taken comes again: a wake-up too many.
        lockDuration: 30_000,
        stalledInterval: 30_000,
        maxStalledCount: 1_000_000,
        runRetryDelay: 500,
        drainDelay: 5,
        removeOnComplete: { count: 0 },
        removeOnFail: { count: 0 },
      },
      bull.backend,
    )
    worker.on('error', onError)
    worker.on('completed', () => options.onWake())
    const building = { worker, bull, isReady: false }
    current = building
    try {
      await within(worker.waitUntilReady(), readyTimeoutMs, `connecting the consumer of ${options.lane}`)
      if (closed) return
      building.isReady = true
      if (paused || resting) await worker.pause(true)
      worker.run().catch(onError)
    } catch (error) {
      onError(error as Error)
      if (current?.worker === worker) current = null
      await end(worker, bull)
      if (!closed) timer = setTimeout(rebuild, rebuildDelayMs)
    }
  }
  let building = build()
  function rebuild(): void {
    building = build()
  }

  return {
    pause() {
      if (paused) return
      paused = true
      current?.worker.pause(true).catch(options.onError)
    },
    resume() {
      if (!paused) return
      paused = false
      resumeNow()
    },
    async close() {
      closed = true
      clearTimeout(timer)
      // BullMQ does not close a connection that it is still making: it would keep the process.
      await within(building, buildEndsMs, 'connecting a consumer that is closed').catch(() => undefined)
      if (current !== null) await end(current.worker, current.bull)
    },
  }
}

async function end(worker: BullWorker, bull: BullConnection): Promise<void> {
  await within(worker.close(true), 2_000, 'closing a consumer').catch(() => undefined)
  await bull.close()
}
