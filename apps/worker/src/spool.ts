import { createHash, randomUUID } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { AttemptEndRecord } from '@askonce/store'

/** A record that cannot be delivered; the message is our own words. */
export class SpoolError extends Error {}

/** An answer on disk. */
export interface SpoolRecord {
  /** Identity of the database that the job lives in. */
  database: string
  tenant: string
  end: AttemptEndRecord
}

interface SpoolFile {
  version: 1
  database: string
  tenant: string
  job: string
  attempt: number
  end: Omit<AttemptEndRecord, 'response'>
  /** base64 */
  response: string
  /** SHA-256 of the answer's bytes, hex. */
  sha256: string
}

/**
 * Paid answers that could not be stored yet. Written under a temporary name, synced and renamed, so that a final name always
 * holds a whole record; only final names are scanned.
 */
export class Spool {
  private readonly directory: string
  private ready: Promise<unknown> | null = null

  constructor(directory: string) {
    this.directory = directory
  }

  /** Safe on disk when it resolves. Returns the file's path. */
  async write({ database, tenant, end }: SpoolRecord): Promise<string> {
    this.ready ??= mkdir(this.directory, { recursive: true, mode: 0o700 })
    await this.ready.catch((error: unknown) => {
      this.ready = null
      throw error
    })
    const { response, ...rest } = end
    const bytes = response ?? Buffer.alloc(0)
    const content: SpoolFile = {
      version: 1,
      database,
      tenant,
      job: end.jobId,
      attempt: end.attempt,
      end: rest,
      response: bytes.toString('base64'),
      sha256: sha256(bytes),
    }
    const path = join(this.directory, `${end.jobId}.${end.attempt}.json`)
    const temporary = join(this.directory, `.${randomUUID()}.tmp`)
    try {
      await writeSynced(temporary, JSON.stringify(content))
      await rename(temporary, path)
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => undefined)
      throw error
    }
    await syncDirectory(this.directory)
    return path
  }

  /** Paths of whole records, oldest job first. An absent directory is an empty one. */
  async list(): Promise<string[]> {
    const names = await readdir(this.directory).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    })
    return names
      .filter((name) => /^[0-9a-f-]{36}\.\d+\.json$/.test(name))
      .toSorted()
      .map((name) => join(this.directory, name))
  }

  /** Rejects when the file is damaged. */
  async read(path: string): Promise<SpoolRecord> {
    const content = parse(await readFile(path, 'utf8'))
    const response = Buffer.from(content.response, 'base64')
    if (content.version !== 1 || sha256(response) !== content.sha256) {
      throw new SpoolError('the record does not match its checksum')
    }
    return { database: content.database, tenant: content.tenant, end: { ...content.end, response } }
  }

  /** Deletes a record whose answer is committed. Another process may have been faster. */
  async remove(path: string): Promise<void> {
    await rm(path, { force: true })
  }

  /** Keeps a record out of later scans, for a person to look at. Returns the new path. */
  async setAside(path: string, why: 'damaged' | 'unstorable' | 'orphan'): Promise<string> {
    await rename(path, `${path}.${why}`)
    return `${path}.${why}`
  }
}

function parse(text: string): SpoolFile {
  try {
    return JSON.parse(text) as SpoolFile
  } catch {
    throw new SpoolError('the record is not JSON')
  }
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

async function writeSynced(path: string, text: string): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Makes the rename itself durable. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
