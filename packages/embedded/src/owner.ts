import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { groundSettings, postgresParts } from '@askonce/address'
import pg from 'pg'
import { EmbeddedPostgresError, fileError } from './errors.ts'
import { isAlive, ownProcess } from './process.ts'

/** Who runs on a data directory; the file `owner.json` in it. Tells the command line where its server is. */
export interface OwnerRecord {
  readonly pid: number
  /** Tells the process from a later one of the same pid. */
  readonly start: string
  /** ISO time. */
  readonly since: string
  /** For instance `http://127.0.0.1:8080`; null while it is starting. */
  readonly address: string | null
  readonly apiKey?: string
}

/** Ownership of a data directory by this process. */
export interface Owner {
  /** Records what is known by now for others to read. Throws EmbeddedPostgresError when it cannot be written. */
  update(change: { readonly address?: string; readonly apiKey?: string }): void
  /** Removes the record but keeps the lock until {@link release}, so that nobody else starts meanwhile. */
  retire(): void
  /** Gives the data directory up. Safe to call twice. */
  release(): Promise<void>
}

export interface OwnerOptions {
  readonly dataDir: string
  /** The embedded database, whose lock decides. Without it only the record does, and two starts at one moment both pass. */
  readonly url?: string
  readonly log?: (text: string) => void
}

// The two-number form has its own key space, apart from every one-number advisory lock.
const LOCK = 'select pg_try_advisory_lock(1634955119, 1) as held'
// The lock of a killed process is free once the server has noticed, normally within milliseconds.
const PATIENCE_MS = 3_000

/**
 * Makes this process the owner of a data directory, or throws EmbeddedPostgresError `already_running` naming who is.
 *
 * The proof is an advisory lock on a connection of its own: it dies with the process and with nothing else. It is lost
 * for a moment when the database restarts (and taken again in the background); in that gap the record of a live process
 * still refuses others.
 */
export async function acquireOwner(options: OwnerOptions): Promise<Owner> {
  const { dataDir, url } = options
  const lock = url === undefined ? undefined : await OwnerLock.take(url, dataDir, options.log ?? (() => {}))
  const other = readOwner(dataDir)
  if (other && other.pid !== process.pid) {
    await lock?.release()
    throw alreadyRunning(dataDir, other)
  }
  let record: OwnerRecord = { ...ownProcess(), since: new Date().toISOString(), address: null }
  let retired = false
  const retire = (): void => {
    if (!retired) rmSync(ownerFile(dataDir), { force: true })
    retired = true
  }
  const owner: Owner = {
    update(change) {
      record = { ...record, ...change }
      write(dataDir, record)
    },
    retire() {
      lock?.retire()
      retire()
    },
    async release() {
      retire()
      await lock?.release()
    },
  }
  try {
    owner.update({})
  } catch (error) {
    await lock?.release()
    throw error
  }
  return owner
}

/** The live owner of a data directory; undefined when nobody runs on it, whatever a killed process left written. */
export function readOwner(dataDir: string): OwnerRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(ownerFile(dataDir), 'utf8')) as OwnerRecord
    return isAlive(record) ? record : undefined
  } catch {
    return undefined
  }
}

export function alreadyRunning(dataDir: string, owner: OwnerRecord | undefined): EmbeddedPostgresError {
  const who = owner
    ? `pid ${owner.pid}, ${owner.address ?? 'still starting'}, since ${owner.since}`
    : 'another process holds its database'
  return new EmbeddedPostgresError(
    'already_running',
    `already running on ${dataDir}: ${who}. Use that one, stop it first, or choose another folder with ASKONCE_DATA_DIR`,
  )
}

function ownerFile(dataDir: string): string {
  return join(dataDir, 'owner.json')
}

function write(dataDir: string, record: OwnerRecord): void {
  const path = ownerFile(dataDir)
  try {
    writeFileSync(`${path}.new`, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 })
    renameSync(`${path}.new`, path)
  } catch (error) {
    throw fileError(error, 'writing', path)
  }
}

/** The advisory lock, held again after each loss of its connection. */
class OwnerLock {
  readonly #url: string
  readonly #log: (text: string) => void
  #client: pg.Client | undefined
  #retired = false

  private constructor(url: string, log: (text: string) => void) {
    this.#url = url
    this.#log = log
  }

  static async take(url: string, dataDir: string, log: (text: string) => void): Promise<OwnerLock> {
    const lock = new OwnerLock(url, log)
    const deadline = performance.now() + PATIENCE_MS
    while (!(await lock.#tryTake())) {
      if (performance.now() > deadline) throw alreadyRunning(dataDir, readOwner(dataDir))
      await sleep(100)
    }
    return lock
  }

  retire(): void {
    this.#retired = true
  }

  async release(): Promise<void> {
    this.#retired = true
    await this.#client?.end().catch(() => {})
  }

  async #tryTake(): Promise<boolean> {
    const client = new pg.Client({
      ...postgresParts(this.#url, groundSettings),
      application_name: 'askonce owner',
      keepAlive: true,
      connectionTimeoutMillis: 3_000,
    })
    client.on('error', () => {})
    await client.connect()
    const held = await client.query<{ held: boolean }>(LOCK).then(
      ({ rows }) => rows[0]?.held === true,
      () => false,
    )
    if (!held || this.#retired) {
      await client.end().catch(() => {})
      return false
    }
    this.#client = client
    client.once('end', () => void this.#retake())
    return true
  }

  async #retake(): Promise<void> {
    while (!this.#retired) {
      try {
        if (await this.#tryTake()) return this.#log('the lock on the data directory is held again')
      } catch {
        // The database is still away.
      }
      await sleep(250)
    }
  }
}
