import { sql, type RawBuilder } from 'kysely'
import { hot } from '../hot.ts'
import type { LocalEnd } from '../session.ts'
import type { Db } from '../tables.ts'

export interface WorkerIdentity {
  id: string
  host: string
  pid: number
  version: string
}

/** What a beat says about the session that it is written in. */
export interface BeatSession {
  /** Our end of its connection; null: unknown. */
  localEnd: LocalEnd | null
  leaseMs: number
}

/**
 * The process id of this session, if its end can be told from a partition: only then does the death of the worker end it early. The
 * server must see the worker's own socket, for what stands between (a pooler, a proxy, a NAT) can go while the worker lives; and it must
 * not be set to give up a silent client within the lease. Null: the end of the session says nothing.
 */
const tellingSession = ({ localEnd, leaseMs }: BeatSession): RawBuilder<number | null> => sql`
  case when host(inet_client_addr()) = ${localEnd?.address ?? null}::text and inet_client_port() = ${localEnd?.port ?? null}::integer
    and (
      current_setting('tcp_keepalives_idle')::integer = 0
      or current_setting('tcp_keepalives_idle')::integer
        + current_setting('tcp_keepalives_interval')::integer * current_setting('tcp_keepalives_count')::integer
        > ${leaseMs}::float8 / 1000
    )
    and (current_setting('tcp_user_timeout')::integer = 0 or current_setting('tcp_user_timeout')::integer > ${leaseMs}::float8)
  then pg_backend_pid() end`

/** Of callers that are no process of their own and so leave no sign. */
const silent: BeatSession = { localEnd: null, leaseMs: 0 }

/** Adds the heartbeat row of a worker that starts, or that found itself declared dead and takes a new id. */
export async function registerWorker(db: Db, worker: WorkerIdentity, session = silent): Promise<void> {
  await sql`
    insert into workers (id, host, pid, version, session)
    values (${worker.id}::uuid, ${worker.host}, ${worker.pid}, ${worker.version}, ${tellingSession(session)})
    on conflict (id) do nothing
  `.execute(db)
}

/** One beat, which names the session that it is written in. False: the id has been declared dead (or swept) and may never claim again. */
export async function beatWorker(db: Db, workerId: string, session = silent): Promise<boolean> {
  const rows = await hot<unknown>(db, 'beat_worker')`
    update workers set beat = beat + 1, beat_at = now(), session = ${tellingSession(session)}
    where id = ${workerId}::uuid and not dead returning id
  `
  return rows.length > 0
}

export interface OpenAttempt {
  jobId: string
  attempt: number
  /** Number of its claim. */
  claim: number
  /** Whether the attempt still owns its job; false: cancelled, answered by another attempt, expired or gone. */
  owned: boolean
}

/** The attempts of a worker that the ledger holds open, of its claims from this number on: those before it may have left many dead entries. */
export async function readOpenAttempts(db: Db, workerId: string, firstClaim: number): Promise<OpenAttempt[]> {
  const rows = await hot<OpenAttempt>(db, 'read_open_attempts')`
    select a.job_id as "jobId", a.attempt, a.claim, coalesce(j.state = 'running' and j.attempt = a.attempt, false) as owned
    from open_attempts a left join lateral (select state, attempt from jobs where id = a.job_id limit 1) j on true
    where a.worker_id = ${workerId}::uuid and a.claim >= ${firstClaim}::bigint
  `
  return rows
}

export interface OverdueAttempt {
  jobId: string
  attempt: number
  tenant: string
  lane: string
  worker: string
  runningMs: number
}

/**
 * Open attempts of live workers that run longer than their timeout and `graceMs`. An alert, never a reclaim: only its own worker ends
 * an attempt for its timeout.
 */
export async function readOverdueAttempts(db: Db, graceMs: number, limit: number): Promise<OverdueAttempt[]> {
  const { rows } = await sql<OverdueAttempt>`
    select a.job_id as "jobId", a.attempt, a.tenant_id as tenant, a.lane, a.worker_id as worker,
      extract(epoch from now() - a.started_at)::float8 * 1000 as "runningMs"
    from open_attempts o
    join attempts a on a.job_id = o.job_id and a.attempt = o.attempt
    join workers w on w.id = a.worker_id and not w.dead
    join jobs j on j.id = a.job_id
    where a.started_at < now() - (j.timeout_ms + ${graceMs}) * interval '1 millisecond'
    order by a.started_at
    limit ${limit}
  `.execute(db)
  return rows
}

export interface Beat {
  id: string
  beat: number
  /** Of the last beat, where its end is a sign of death; null: it is none. */
  session: number | null
  /** Whether that session exists. */
  connected: boolean
}

export interface BeatReading {
  /** The session of the reader: two readings in the same one saw the same run of the server. */
  reader: number
  /** How many sessions of this database ended without a farewell, as those of a killed process do. It only grows, save for a reset. */
  abandoned: number
  beats: Beat[]
}

/** The beats of all workers that are not dead, for a janitor's watch. Process ids of sessions are shown to every role. */
export async function readBeats(db: Db): Promise<BeatReading> {
  const [reading] = await hot<BeatReading>(db, 'read_beats')`
    select pg_backend_pid() as reader,
      (select sessions_abandoned from pg_stat_database where datname = current_database()) as abandoned,
      (
        select coalesce(jsonb_agg(jsonb_build_object(
          'id', w.id, 'beat', w.beat, 'session', w.session, 'connected', coalesce(w.session = any (s.pids), false)
        )), '[]')
        from workers w, (select coalesce(array_agg(pid), '{}') as pids from pg_stat_get_activity(null)) s
        where not w.dead
      ) as beats
  `
  if (reading === undefined) throw new Error('a statement without FROM returns one row')
  return reading
}

/**
 * Declares a worker dead, only if its beat is still the one that the watcher saw all the while; `endedSession`: and only if the session
 * of that beat still does not exist.
 */
export async function markWorkerDead(
  db: Db,
  workerId: string,
  seenBeat: number,
  endedSession: number | null = null,
): Promise<boolean> {
  const ended =
    endedSession === null
      ? sql`true`
      : sql`session = ${endedSession} and not exists (select from pg_stat_get_activity(${endedSession}))`
  return bury(db, sql`id = ${workerId}::uuid and beat = ${seenBeat} and ${ended}`)
}

/** The worker's own farewell, when it holds nothing any more: what it left open after all is reclaimed at once. */
export async function retireWorker(db: Db, workerId: string): Promise<void> {
  await bury(db, sql`id = ${workerId}::uuid`)
}

/** FOR UPDATE waits for claims under way and keeps others out; the lock of the UPDATE alone would let them pass. */
async function bury(db: Db, which: RawBuilder<unknown>): Promise<boolean> {
  const { rows } = await sql`
    with doomed as (select id from workers where ${which} and not dead for update)
    update workers w set dead = true, died_at = now() from doomed where w.id = doomed.id
    returning w.id
  `.execute(db)
  return rows.length > 0
}

/** Removes rows of workers dead for a day that left no open attempt. */
export async function sweepWorkers(db: Db): Promise<number> {
  const { rows } = await sql`
    delete from workers w
    where w.dead and w.died_at < now() - interval '1 day'
      and not exists (select from open_attempts a where a.worker_id = w.id)
    returning w.id
  `.execute(db)
  return rows.length
}
