import { setTimeout as sleep } from 'node:timers/promises'
import { within } from '@askonce/timing'
import { sql } from 'kysely'
import { ReadOnlySettingError, StoreRefusalError } from './errors.ts'
import { explainRefusal } from './refusals.ts'
import type { Db } from './tables.ts'

/** How long a look or a write may take. Askers wait three seconds: they shall learn more than that it took too long. */
const limitMs = 2_000
/** Time to find out what a write that takes too long waits for. */
const whyMs = 500
/** How often there is a write while all is well, and while the last one failed. */
const writeEveryMs = 5_000
const writeAgainMs = 1_000
/**
 * Rows that a function leaves in temporary storage, about 280 kB: with `work_mem` at its least they go to a file, and a disk that is full
 * says so. A small commit alone would find room in blocks that are there.
 */
const spilledRows = 20_000
const spilledBytes = 1024 * 1024

/** What to do when commits wait for a standby. */
const synchronousTodo =
  'Bring the standby back, or take it out of synchronous_standby_names: until then nothing that waits for it is lost or acknowledged.'

/**
 * Whether Postgres does a process's work: it answers, and it takes writes. Each check looks at the session; every few seconds one also
 * commits a write of ours and has disk blocks allocated, 5 to 10 ms together. The write is a message in the write-ahead log: it touches no row,
 * so any number of probing processes neither wait for each other nor leave anything to vacuum, and it needs no schema and no grant.
 * Not noticed: a disk that only other tablespaces are on, and what is wrong with single tables.
 */
export class StoreProbe {
  private readonly db: Db
  private checking: Promise<void> | null = null
  private writing: Promise<void> | null = null
  private writeDueAt = Number.NEGATIVE_INFINITY
  /** What the last write met. */
  private writeError: unknown = null
  private troubled = false

  constructor(db: Db) {
    this.db = db
  }

  /** Whether the last check failed, or somebody has doubts since. */
  get inTrouble(): boolean {
    return this.troubled
  }

  /** Somebody's statement found Postgres away, or without room: the next check writes. */
  doubt(): void {
    this.troubled = true
    this.writeDueAt = Number.NEGATIVE_INFINITY
  }

  /**
   * Resolves while Postgres does its work, in three seconds at most; askers share a check that is under way. Rejects with a
   * {@link StoreRefusalError} that says what is wrong and what to do, or with the driver's error.
   */
  check(): Promise<void> {
    this.checking ??= this.run().finally(() => {
      this.checking = null
    })
    return this.checking
  }

  /** What {@link check} finds, as a line for people; null: nothing. */
  async problem(): Promise<string | null> {
    try {
      await this.check()
      return null
    } catch (error) {
      return error instanceof StoreRefusalError ? error.message : 'Postgres does not answer'
    }
  }

  private async run(): Promise<void> {
    try {
      await within(
        this.look(),
        limitMs,
        () => new StoreRefusalError('Postgres does not answer', 'Is it running, and is the way to it open?'),
      )
      // One at a time: writes that hang would take a connection each.
      if (this.writing === null && performance.now() >= this.writeDueAt) await this.write()
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- as it came
      else if (this.writeError !== null) throw this.writeError
      this.troubled = false
    } catch (error) {
      this.troubled = true
      throw explainRefusal(error) ?? error
    }
  }

  private async look(): Promise<void> {
    await this.db.connection().execute(async (one) => {
      const { rows } = await sql<{ standby: boolean; readOnly: boolean }>`
        select pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as "readOnly"
      `.execute(one)
      if (rows[0]?.readOnly !== true) return
      const refusal = rows[0].standby ? standbyRefusal() : await readOnlyRefusal(one)
      // A new session may lead to the primary, or be of a role that has been put right; the error ends this one.
      await sql`do $$ begin raise read_only_sql_transaction; end $$`.execute(one).catch(() => undefined)
      throw refusal
    })
  }

  private async write(): Promise<void> {
    const step: WriteStep = { pid: null }
    const writing = commitWrite(this.db, step)
    this.writing = writing
      .catch(() => undefined)
      .finally(() => {
        this.writing = null
      })
    try {
      await within(writing, limitMs, () => new LateError())
      this.writeError = null
    } catch (error) {
      this.writeError = error instanceof LateError ? await this.giveUp(step) : error
    }
    this.writeDueAt = performance.now() + (this.writeError === null ? writeEveryMs : writeAgainMs)
    // eslint-disable-next-line @typescript-eslint/only-throw-error -- as it came
    if (this.writeError !== null) throw this.writeError
  }

  /** Says what a write waits for, and ends it: a commit that waits for a standby keeps its connection for as long as the standby is away. */
  private async giveUp({ pid }: WriteStep): Promise<StoreRefusalError> {
    if (pid === null)
      return new StoreRefusalError('Postgres does not answer', 'Is it running, and is the way to it open?')
    const waits = async (): Promise<string | null> => {
      const { rows } = await sql<{ waitEvent: string | null }>`
        select wait_event as "waitEvent" from pg_stat_activity where pid = ${pid}
      `.execute(this.db)
      return rows[0]?.waitEvent ?? null
    }
    const waitEvent = await Promise.race([waits().catch(() => null), sleep(whyMs, null)])
    void sql`select pg_cancel_backend(${pid}::int)`.execute(this.db).catch(() => undefined)
    if (waitEvent === 'SyncRep') {
      return new StoreRefusalError(
        'commits wait for a standby that does not confirm them (synchronous_standby_names)',
        synchronousTodo,
      )
    }
    const waiting = waitEvent === null ? '' : `, and waits for ${waitEvent}`
    return new StoreRefusalError(
      `a write of ours is not committed within ${limitMs / 1000} s${waiting}`,
      'Is its disk slow or stuck, or the server overloaded?',
    )
  }
}

interface WriteStep {
  /** Of the backend that commits; null: not known yet. */
  pid: number | null
}

class LateError extends Error {}

async function commitWrite(db: Db, step: WriteStep): Promise<void> {
  await db.transaction().execute(async (trx) => {
    const { rows } = await sql<{ pid: number; mayUse: number }>`
      select pg_backend_pid() as pid, set_config('work_mem', '64kB', true),
        pg_size_bytes(current_setting('temp_file_limit'))::float8 as "mayUse"
    `.execute(trx)
    const { pid = null, mayUse = -1 } = rows[0] ?? {}
    step.pid = pid
    const count = mayUse === -1 || mayUse >= spilledBytes ? spilledRows : 0
    await sql`
      select pg_logical_emit_message(true, 'askonce', 'probe'), (select count(*) from generate_series(1, ${count}::int))
    `.execute(trx)
  })
}

function standbyRefusal(): StoreRefusalError {
  return new StoreRefusalError(
    'this server is a standby (in recovery): it takes no writes',
    'Let DATABASE_URL, and DATABASE_DIRECT_URL if it is set, lead to the primary, or promote this server: select pg_promote();',
  )
}

/** Who has switched it on, by the source of the setting; and what switches it off. */
async function readOnlyRefusal(db: Db): Promise<ReadOnlySettingError> {
  const { rows } = await sql<{ source: string; role: string; database: string }>`
    select source, quote_ident(session_user) as role, quote_ident(current_database()) as database
    from pg_settings where name = 'default_transaction_read_only'
  `.execute(db)
  const { source = '', role = '', database = '' } = rows[0] ?? {}
  const setting = 'default_transaction_read_only'
  const places: Readonly<Record<string, readonly [where: string, todo: string]>> = {
    user: [`for the role ${role}`, `alter role ${role} reset ${setting};`],
    database: [`for the database ${database}`, `alter database ${database} reset ${setting};`],
    'database user': [
      `for the role ${role} in the database ${database}`,
      `alter role ${role} in database ${database} reset ${setting};`,
    ],
    global: ['for all roles', `alter role all reset ${setting};`],
    client: ['in the options of the address', `Take it out of DATABASE_URL, and out of PGOPTIONS.`],
    session: ['in the session, by somebody who shares the pooler', 'Give Askonce a role of its own behind the pooler.'],
  }
  const [where, todo] = places[source] ?? [
    'for the server',
    `alter system reset ${setting}; select pg_reload_conf(); and look into postgresql.conf. A managed server may have done this because its disk is nearly full: make room.`,
  ]
  return new ReadOnlySettingError(`sessions are read-only: ${setting} is on ${where}`, todo)
}
