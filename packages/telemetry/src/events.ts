import type { LogFields } from './fields.ts'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

interface EventDefinition {
  level: LogLevel
  /** What has happened. */
  when: string
  /** Fields that the line may carry besides `role`. The failing form of an event carries the same ones as the succeeding form. */
  fields: readonly (keyof LogFields)[]
}

const event = (level: LogLevel, when: string, ...fields: (keyof LogFields)[]): EventDefinition => ({
  level,
  when,
  fields,
})

const attemptFields = [
  'tenant',
  'job_id',
  'attempt',
  'generation',
  'operation',
  'model',
  'provider',
  'lane',
  'worker',
  'state',
  'outcome',
  'error_code',
  'status',
  'duration_ms',
  'queue_ms',
  'tokens_in',
  'tokens_out',
  'cost_usd',
  'reason',
] as const satisfies readonly (keyof LogFields)[]

const requestFields = ['req_id', 'client', 'tenant', 'route', 'status', 'error_code', 'duration_ms', 'reason'] as const

/** Every line that is ever logged. docs/events.md is compared with it. */
export const events = {
  'api.started': event('info', 'The API listens.', 'address', 'version', 'pid', 'host', 'duration_ms'),
  'api.stopping': event('info', 'The API takes no new connections; requests under way may finish.', 'reason'),
  'api.stopped': event('info', 'The API has closed everything.', 'duration_ms', 'reason'),
  'api.key_ready': event('info', 'The bootstrap key exists.', 'tenant', 'reason'),
  'api.key_revoked': event(
    'warn',
    'The bootstrap key was revoked and stays so: set ASKONCE_BOOTSTRAP_KEY to another one, or unset it; `askonce keys create` makes keys.',
    'tenant',
  ),
  'api.key_refused': event(
    'warn',
    'Requests of a `client` were refused for their key: none, unknown or revoked (401), or without the scope (403). Once a minute for each client; `count` are those since its line before.',
    'client',
    'req_id',
    'route',
    'status',
    'error_code',
    'count',
  ),
  'api.connections_refused': event(
    'warn',
    'Connections were closed unanswered because as many as may be are open; once a second at most.',
    'count',
    'reason',
  ),
  'request.ended': event('debug', 'A request was answered with a status below 500.', ...requestFields),
  'request.failed': event('error', 'A request was answered with 500 or more.', ...requestFields),
  'submission.settled': event(
    'debug',
    'A submission is committed; `outcome` is new, rerun, attached, replayed or mismatch.',
    'req_id',
    'tenant',
    'job_id',
    'generation',
    'operation',
    'model',
    'lane',
    'state',
    'outcome',
  ),
  'submission.overloaded': event(
    'warn',
    'Submissions were refused because too many wait; once a second at most.',
    'count',
    'reason',
  ),

  'worker.started': event('info', 'A worker takes deliveries.', 'worker', 'version', 'pid', 'host', 'count', 'address'),
  'worker.stopping': event(
    'info',
    'A worker drains: no new claims, `count` calls may finish.',
    'worker',
    'count',
    'reason',
  ),
  'worker.stopped': event(
    'info',
    'A worker has ended; `count` calls were aborted.',
    'worker',
    'count',
    'duration_ms',
    'reason',
  ),
  'worker.id_changed': event(
    'warn',
    'A worker found itself declared dead and goes on under a new id.',
    'worker',
    'count',
    'reason',
  ),
  'worker.beat_late': event(
    'warn',
    'The last beat is older than half the lease: no claims and no calls until the next.',
    'worker',
    'duration_ms',
    'reason',
  ),
  'worker.held_back': event(
    'error',
    'Answers cannot be stored, so no more claims are made; `count` of them wait.',
    'count',
    'reason',
  ),
  'worker.resumed': event('info', 'Answers are stored again, and claims made.', 'duration_ms'),
  'attempt.ended': event('info', 'An attempt has its end in the ledger, whatever the outcome.', ...attemptFields),
  'attempt.looked_up': event(
    'info',
    'The provider was asked for the answer of an attempt that is maybe billed; `outcome` is found, absent or failed.',
    ...attemptFields,
  ),
  'attempt.overdue': event('error', 'An attempt of a live worker runs far beyond its timeout.', ...attemptFields),
  'attempt.reclaimed': event('warn', 'An attempt of a dead worker was ended as maybe billed.', ...attemptFields),

  'lane.stopped': event(
    'error',
    'Money or credentials: the lane waits for `askonce lanes resume`.',
    'lane',
    'provider',
    'error_code',
    'reason',
  ),
  'lane.paused': event(
    'warn',
    'The provider asked to wait: for one model, or, where none is named, for the whole lane.',
    'lane',
    'model',
    'provider',
    'error_code',
    'duration_ms',
    'reason',
  ),
  'lane.breaker': event(
    'warn',
    'The provider is overloaded: the lane is closed but for one probe at a time.',
    'lane',
    'provider',
    'error_code',
    'duration_ms',
    'reason',
  ),
  'lane.resumed': event('info', 'The lane is open again.', 'lane', 'tenant', 'reason'),
  'tenant.changed': event('info', 'A tenant was made, or its limits were set.', 'tenant', 'req_id', 'reason'),

  'spool.written': event(
    'warn',
    'An answer that could not be stored is safe on disk.',
    'job_id',
    'attempt',
    'tenant',
    'worker',
    'file',
    'reason',
  ),
  'spool.delivered': event(
    'info',
    'A spooled answer is stored.',
    'job_id',
    'attempt',
    'tenant',
    'worker',
    'file',
    'outcome',
    'state',
  ),
  'spool.unavailable': event(
    'error',
    'The spool directory `file` cannot be written; once per outage. Answers that Postgres does not take stay in memory.',
    'file',
    'reason',
  ),
  'spool.recovered': event('info', 'The spool directory can be written again.', 'file', 'duration_ms'),
  'spool.damaged': event(
    'error',
    'A file of the spool is no whole record; `outcome` says in which way. It is set aside, as `file`.',
    'file',
    'outcome',
    'reason',
  ),
  'spool.foreign': event(
    'error',
    'A record is of another database. It is left for a worker of that one.',
    'job_id',
    'attempt',
    'tenant',
    'file',
  ),
  'spool.orphaned': event(
    'error',
    'The ledger does not know the attempt of a record, as after a restore. It is set aside, as `file`.',
    'job_id',
    'attempt',
    'tenant',
    'file',
    'reason',
  ),
  'answer.unstorable': event(
    'error',
    'The database refuses a paid answer as data; the file keeps it.',
    'job_id',
    'attempt',
    'tenant',
    'worker',
    'file',
    'error_code',
    'reason',
  ),
  'answer.lost': event(
    'error',
    'A paid answer is neither stored nor on disk, and its worker has given it up.',
    'job_id',
    'attempt',
    'tenant',
    'worker',
    'reason',
  ),

  'janitor.started': event('info', 'A janitor runs its loops.', 'version', 'pid', 'host', 'address'),
  'janitor.stopping': event('info', 'A janitor ends its loops.', 'reason'),
  'janitor.stopped': event('info', 'A janitor has ended.', 'duration_ms', 'reason'),
  'worker.declared_dead': event(
    'warn',
    'A worker’s beat stood still for the whole lease, or for a third of it after its process ended.',
    'worker',
    'host',
    'pid',
    'duration_ms',
    'reason',
  ),
  'job.deadline_exceeded': event('warn', 'Queued jobs failed because their deadline passed.', 'count', 'error_code'),
  'job.uncertain_expired': event('warn', 'Held jobs failed because nobody decided in time.', 'count', 'error_code'),
  'batch.ended': event(
    'info',
    'A batch has ended: failed, completed, expired or cancelled.',
    'batch',
    'tenant',
    'operation',
    'state',
    'count',
    'duration_ms',
  ),
  'sweep.done': event('info', 'Expired rows were deleted.', 'loop', 'count', 'duration_ms'),
  'sweep.skipped': event(
    'error',
    'Something could not be deleted even alone; what is behind it goes on.',
    'loop',
    'reason',
  ),
  'loop.failed': event(
    'error',
    'A round of a loop failed; the next one comes anyway.',
    'loop',
    'count',
    'duration_ms',
    'error_code',
    'reason',
  ),

  'database.starting': event('info', 'The embedded database starts.', 'address', 'reason'),
  'database.started': event('info', 'The embedded database answers.', 'address', 'version', 'pid', 'duration_ms'),
  'database.stopped': event('info', 'The embedded database has stopped.', 'duration_ms', 'reason'),
  'schema.migrated': event('info', 'Migrations were applied.', 'count', 'version', 'reason'),
  'pooler.settings_missing': event(
    'warn',
    'The role behind the pooler lacks `count` of the settings that our sessions begin with; `reason` is what to run.',
    'count',
    'reason',
  ),
  'store.unavailable': event('error', 'Postgres cannot be reached; once per outage.', 'reason', 'address'),
  'store.waiting': event(
    'warn',
    'A process that starts still waits for Postgres; every 30 s, and when the reason changes.',
    'reason',
    'duration_ms',
  ),
  'store.recovered': event('info', 'Postgres answers again.', 'duration_ms', 'address'),
  'queue.unavailable': event(
    'error',
    'The queue cannot be reached; once per outage. Nothing is lost by it.',
    'reason',
    'address',
  ),
  'queue.shared': event(
    'warn',
    'Another system works on the same Redis with the same prefix; once when it is noticed. Jobs still run.',
    'reason',
  ),
  'queue.unshared': event('info', 'No other system uses the prefix any longer.'),
  'queue.recovered': event('info', 'The queue answers again.', 'duration_ms', 'address'),
  'library.warned': event(
    'warn',
    'A library wrote to the console; once for each place in its code. Its text is not repeated.',
    'reason',
  ),
  'log.dropped': event('warn', 'Nobody read the log for a while; `count` lines were dropped.', 'count'),
  'process.stopped_late': event(
    'error',
    'Stopping took longer than it may, and the process ended itself; `reason` names what was still open.',
    'duration_ms',
    'reason',
  ),
  'process.open_files_low': event(
    'warn',
    'The process may open `count` files and connections (`ulimit -n`), and could need more; `reason` says what for.',
    'count',
    'reason',
  ),
  'process.failed': event('error', 'The process cannot go on and exits.', 'reason'),
} as const satisfies Record<string, EventDefinition>

export type EventName = keyof typeof events

export const eventNames = Object.keys(events) as EventName[]

/** The table of docs/events.md. */
export function renderEvents(): string {
  const rows = Object.entries(events).map(
    ([name, { level, when, fields }]) =>
      `| \`${name}\` | ${level} | ${when} | ${fields.map((field) => `\`${field}\``).join(', ')} |`,
  )
  return ['| event | level | when | fields |', '|---|---|---|---|', ...rows].join('\n')
}
