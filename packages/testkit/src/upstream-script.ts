/**
 * What the counting upstream does with a request. It counts a call, which stands for a bill, when it has read the request
 * and runs it: `refuse` and `reset` are not counted, all others are.
 * A request with `"stream": true` is answered as server-sent events that say the same: `chunks` pieces of text, each event
 * `chunkDelayMs` after the one before. `afterEvents`: how many events come before the break; half of them unless given (`hang`: none).
 */
export type Behaviour =
  | {
      kind: 'answer'
      delayMs?: number
      storedAfterMs?: number
      answerBytes?: number
      /** The bytes of the body, streamed or not. */
      body?: string
      headers?: Record<string, string>
      chunks?: number
      chunkDelayMs?: number
      /** The events of a stream: an object is sent as its JSON, a text as it is. */
      events?: readonly (object | string)[]
    }
  /** A 200 whose body is not what was promised; an HTML page unless told otherwise. */
  | { kind: 'garbage'; delayMs?: number; body?: string; contentType?: string }
  /** Never answers; a stream sends so many of its events first. */
  | { kind: 'hang'; storedAfterMs?: number; afterEvents?: number }
  /** Breaks the connection off: with nothing sent, after the head of the answer, or in the middle of its body. */
  | {
      kind: 'cut'
      delayMs?: number
      storedAfterMs?: number
      after: 'nothing' | 'head' | 'half'
      afterEvents?: number
    }
  /** Ends the response properly in the middle of its body: a stream without its ending. */
  | { kind: 'unfinished'; delayMs?: number; afterEvents?: number }
  /** An error in the middle of a stream, the provider's own unless given; a plain answer is a 200 with the error. */
  | { kind: 'stream_error'; delayMs?: number; afterEvents?: number; error?: object }
  /** An object is sent as JSON, a string as it is. `billed` counts it all the same: a proxy gave up on a call that runs. */
  | {
      kind: 'refuse'
      delayMs?: number
      status: number
      body?: object | string
      headers?: Record<string, string>
      billed?: boolean
    }
  /** Resets the connection instead of running the request. */
  | { kind: 'reset' }
  /** Answers a look-up of stored completions with this status. Fits look-ups only, and they fit nothing else. */
  | { kind: 'look_up_fails'; status: number }

/** Which requests; every member that is given has to fit. */
export interface Match {
  marker?: string
  model?: string
  path?: string
}

/** A behaviour for the next requests that fit. */
export type Step = Behaviour & { match?: Match; times?: number }

/** A request as the upstream saw it. */
export interface Arrival {
  /** 1 for the first. */
  number: number
  path: string
  /** Whether it asks for stored completions. */
  lookUp: boolean
  /** The `user` member of the request if it is a string, else the SHA-256 of its body in hexadecimal. */
  marker: string
  model: string
  body: Buffer
  json: Record<string, unknown>
  headers: Record<string, string | string[] | undefined>
}

/** A function over each request, or steps of which the first that fits is used `times` times (1 unless given). */
export type Script = ((arrival: Arrival) => Behaviour | undefined) | readonly Step[]

/** Turns a script into the function that picks the next behaviour; undefined: the default. */
export function compileScript(script: Script): (arrival: Arrival) => Behaviour | undefined {
  if (typeof script === 'function') return script
  const left = script.map((step) => ({ step, times: step.times ?? 1 }))
  return (arrival) => {
    const entry = left.find(
      ({ step, times }) => times > 0 && (step.kind === 'look_up_fails') === arrival.lookUp && fits(step.match, arrival),
    )
    if (entry === undefined) return undefined
    entry.times -= 1
    return entry.step
  }
}

/** Whether a request is one that is meant. */
export function fits(match: Match | undefined, arrival: Arrival): boolean {
  return (['marker', 'model', 'path'] as const).every(
    (name) => match?.[name] === undefined || match[name] === arrival[name],
  )
}
