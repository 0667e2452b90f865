import { pino, type DestinationStream, type Logger } from 'pino'
import { events, type EventName, type LogLevel } from './events.ts'
import { allowedFields, type LogFields } from './fields.ts'
import { patientLines } from './patient-lines.ts'

export interface Log {
  /** Writes one line. The level is the event's own unless given. */
  event(name: EventName, fields?: LogFields, level?: LogLevel): void
  /** A log whose lines all carry these fields. */
  child(fields: LogFields): Log
}

export interface LogOptions {
  /** pino's level name, or `silent`. */
  level: string
  /** api, worker, janitor …; on every line. */
  role: string
  /** Standard output unless given. */
  destination?: DestinationStream
}

/**
 * Opens the log: JSON lines with `level`, `time`, `event` and the listed fields only (see `logFields`); whatever else is
 * passed is dropped. An event that is not in the list is a bug and throws.
 */
export function createLog({ level, role, destination }: LogOptions): Log {
  const options = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  }
  const standard = patientLines(process.stdout, (count) => log.event('log.dropped', { count }))
  const log = wrap(pino(options, destination ?? standard), { role })
  return log
}

function wrap(logger: Logger, bound: LogFields): Log {
  return {
    event(name, fields = {}, level) {
      const definition = events[name]
      if (definition === undefined) throw new Error(`${name as string} is not in the list of events`)
      const at = level ?? definition.level
      if (!logger.isLevelEnabled(at)) return
      // Merged here: pino would write a field of the parent and of the line twice.
      logger[at]({ event: name, ...bound, ...allowedFields(fields) })
    },
    child: (fields) => wrap(logger, { ...bound, ...allowedFields(fields) }),
  }
}
