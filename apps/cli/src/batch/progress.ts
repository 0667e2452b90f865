import { oneLine } from '../terminal.ts'
import { bar, cost } from './bar.ts'
import type { Tally } from './tally.ts'

/** Tells the person at the terminal how far the run is. */
export interface Progress {
  /** Something to know now; null: it is over. Trouble with the server comes before what a job waits for. */
  trouble(text: string | null): void
  waiting(text: string | null): void
  /** The last word, once; leaves the cursor at the beginning of a free line. */
  stop(): void
}

const redrawMs = 100
const plainLineMs = 10_000
const rateWindowMs = 15_000

export const silent: Progress = { trouble: () => undefined, waiting: () => undefined, stop: () => undefined }

/** A line that is drawn again in place on a terminal, a plain line every ten seconds elsewhere. */
export function startProgress(stream: NodeJS.WriteStream, tally: Tally): Progress {
  const notes = { trouble: null as string | null, waiting: null as string | null }
  const speed = new Speed(tally)
  const show = stream.isTTY ? terminal(stream) : plain(stream)
  const draw = (): void => show({ tally, rate: speed.sample(), note: notes.trouble ?? notes.waiting })
  const timer = setInterval(draw, stream.isTTY ? redrawMs : plainLineMs)
  let stopped = false
  if (stream.isTTY) draw()
  return {
    trouble: (text) => void (notes.trouble = text === null ? null : oneLine(text)),
    waiting: (text) => void (notes.waiting = text === null ? null : oneLine(text)),
    stop() {
      if (stopped) return
      stopped = true
      clearInterval(timer)
      if (!stream.isTTY) return
      notes.trouble = null
      notes.waiting = null
      draw()
      stream.write('\n')
    },
  }
}

type Show = (view: Parameters<typeof bar>[0]) => void

/**
 * The cursor is neither hidden nor moved to another line, so there is nothing to restore however the process ends. The rest of the
 * old line is overwritten with blanks, which every terminal understands.
 */
function terminal(stream: NodeJS.WriteStream): Show {
  let drawn = ''
  return (view) => {
    // The last column stays free: some terminals wrap as soon as it is written.
    const width = Math.max(1, (stream.columns || 80) - 1)
    const text = bar(view, width)
    if (text === drawn) return
    stream.write(`\r${text}${' '.repeat(Math.max(0, Math.min(drawn.length, width) - text.length))}`)
    drawn = text
  }
}

function plain(stream: NodeJS.WriteStream): Show {
  return ({ tally, rate, note }) => {
    const { done, total, unpaid, failed } = tally
    const speed = rate === null ? '' : `, ${rate.toFixed(1)}/s`
    const counts = `${unpaid} replayed, ${tally.new} new, ${failed} failed, ${cost(tally)}`
    stream.write(`${done}/${total}${speed}, ${counts}${note === null ? '' : `; ${note}`}\n`)
  }
}

/** Lines per second over the last seconds. */
class Speed {
  private readonly tally: Tally
  private samples: { atMs: number; done: number }[]

  constructor(tally: Tally) {
    this.tally = tally
    this.samples = [{ atMs: performance.now(), done: tally.done }]
  }

  sample(): number | null {
    const now = { atMs: performance.now(), done: this.tally.done }
    const newest = this.samples.at(-1)
    if (newest === undefined || now.atMs - newest.atMs >= 500) this.samples.push(now)
    // The oldest one kept is just outside the window.
    while (this.samples.length > 2 && (this.samples[1]?.atMs ?? 0) < now.atMs - rateWindowMs) this.samples.shift()
    const oldest = this.samples[0] ?? now
    const elapsedMs = now.atMs - oldest.atMs
    return elapsedMs < 500 ? null : ((now.done - oldest.done) / elapsedMs) * 1000
  }
}
