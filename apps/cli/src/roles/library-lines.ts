import { errorReason, type Log } from '@askonce/telemetry'

/** What the libraries are known to write, and what we say instead: their texts may hold what they were given. */
const known: readonly (readonly [RegExp, string])[] = [
  [/does not require a password|password was supplied/, 'Redis needs no password, and REDIS_URL has one'],
  [/^Skipping the ready check because INFO/, 'Redis does not let its user run INFO'],
  [/^IMPORTANT! Eviction policy is/, 'maxmemory-policy of Redis is not noeviction: it may drop queue entries'],
]

/** What we say instead of a library's line; undefined: it is not known. */
export function libraryWords(text: unknown): string | undefined {
  return known.find(([pattern]) => pattern.test(String(text)))?.[1]
}

/** Turns what libraries write to the console into lines of our log, each once: between lines of JSON nobody reads it. */
export function catchLibraryLines(log: Log): void {
  const said = new Set<string>()
  const catchLine = (text: unknown): void => {
    const ours = libraryWords(text)
    const here = new Error('from the console')
    // The place that called, as errorReason names it for what has no code.
    Error.captureStackTrace(here, catchLine)
    const reason = ours ?? errorReason(here)
    if (said.has(reason)) return
    said.add(reason)
    log.event('library.warned', { reason })
  }
  Object.assign(console, { log: catchLine, info: catchLine, warn: catchLine, error: catchLine, debug: catchLine })
}
