/**
 * Places before and after commits and external calls at which a test may stop what goes on in a process, to kill it there, or to let
 * something else happen first: SIGUSR2 lets all that wait go on. `ASKONCE_TEST_PAUSE=name` arms one.
 */
export const pausePoints = [
  'api.received', // a submission is valid, nothing is written
  'api.committed', // the row is durable; neither the answer nor the wake-up has left
  'worker.claiming', // there may be work; the claim has not been sent
  'worker.claimed', // the claim is durable; the request has not left
  'worker.answered', // the answer is in hand; nothing is written
  'worker.spooling', // the answer is on disk under a temporary name
  'worker.pieces_written', // a large answer is in the database, and nobody knows it yet
] as const

export type PausePoint = (typeof pausePoints)[number]

const armed = process.env['ASKONCE_TEST_PAUSE']

/** Null unless a test armed a point, so that passing one costs a comparison. */
export const pauseAt: ((point: PausePoint) => Promise<void>) | null =
  armed === undefined || armed === ''
    ? null
    : async (point) => {
        if (point !== armed) return
        process.stderr.write(`paused at ${point}\n`)
        await untilResumed()
      }

let resumed: Promise<void> | null = null

function untilResumed(): Promise<void> {
  resumed ??= new Promise((resolve) => {
    // A listener for a signal alone does not keep a process alive.
    const alive = setInterval(() => undefined, 60_000)
    process.once('SIGUSR2', () => {
      clearInterval(alive)
      resumed = null
      resolve()
    })
  })
  return resumed
}
