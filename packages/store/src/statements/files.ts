import { sql } from 'kysely'
import type { Db, FileRow } from '../tables.ts'
import { sweepBytes, type SweepBounds, type SweptRows } from './sweep.ts'

/** Longest silence of an upload that is not over: its client has gone, or its API died. */
const silentUploadSeconds = 900

const columns = sql`f.id, f.tenant_id, f.purpose, f.filename, f.status, f.bytes, f.sha256, f.created_at, f.expires_at`

/** Whole, shown, and not expired by the database clock. */
const visible = sql`(f.status = 'processed' and (f.expires_at is null or f.expires_at > now()))`

/** A file that begins to arrive. Nobody sees it before {@link finishUpload}. */
export async function beginUpload(
  db: Db,
  file: { id: string; tenantId: string; purpose: string; filename: string },
): Promise<void> {
  await sql`
    insert into files (id, tenant_id, purpose, filename, status)
    values (${file.id}::uuid, ${file.tenantId}, ${file.purpose}, ${file.filename}, 'uploading')
  `.execute(db)
}

/** Adds the next piece of an upload. False: it has been swept meanwhile, and so is this piece. */
export async function appendUpload(db: Db, id: string, position: number, body: Buffer): Promise<boolean> {
  const { rows } = await sql`
    with f as (update files set touched_at = now() where id = ${id}::uuid and status = 'uploading' returning id)
    insert into file_parts (file_id, "position", body) select f.id, ${position}::bigint, ${body}::bytea from f
    returning file_id
  `.execute(db)
  return rows.length > 0
}

export interface UploadEnd {
  id: string
  purpose: string
  filename: string
  bytes: number
  sha256: Buffer
  /** Null: it does not expire. */
  ttlSeconds: number | null
}

/** The upload is whole: from this commit on it is a file. Null: it has been swept meanwhile. */
export async function finishUpload(db: Db, end: UploadEnd): Promise<FileRow | null> {
  const { rows } = await sql<FileRow>`
    update files f set
      status = 'processed', purpose = ${end.purpose}, filename = ${end.filename}, bytes = ${end.bytes}::bigint,
      sha256 = ${end.sha256}, created_at = now(), expires_at = now() + make_interval(secs => ${end.ttlSeconds}::integer)
    where f.id = ${end.id}::uuid and f.status = 'uploading'
    returning ${columns}
  `.execute(db)
  return rows[0] ?? null
}

/** A tenant's file; null: unknown, not whole, expired or another's. */
export async function readFileRow(db: Db, tenantId: string, id: string): Promise<FileRow | null> {
  const { rows } = await sql<FileRow>`
    select ${columns} from files f where f.id = ${id}::uuid and f.tenant_id = ${tenantId} and ${visible}
  `.execute(db)
  return rows[0] ?? null
}

export interface FileFilter {
  tenantId: string
  purpose: string | null
  ascending: boolean
  /** The last one of the page before. */
  after: string | null
  limit: number
}

/** A page of a tenant's files, by age. Null: the file of `after` is not there. */
export async function listFiles(db: Db, filter: FileFilter): Promise<FileRow[] | null> {
  const { tenantId, purpose, ascending, after, limit } = filter
  const start = after === null ? null : await readFileRow(db, tenantId, after)
  if (after !== null && start === null) return null
  // By the position of the row itself: a Date has lost its microseconds.
  const beyond =
    after === null
      ? sql`true`
      : sql`(f.created_at, f.id) ${sql.raw(ascending ? '>' : '<')}
          (select s.created_at, s.id from files s where s.id = ${after}::uuid)`
  const order = ascending ? sql`f.created_at, f.id` : sql`f.created_at desc, f.id desc`
  const { rows } = await sql<FileRow>`
    select ${columns} from files f
    where f.tenant_id = ${tenantId} and ${visible} and f.purpose = coalesce(${purpose}::text, f.purpose) and ${beyond}
    order by ${order} limit ${limit}
  `.execute(db)
  return rows
}

/** Bytes of a file that is whole, whatever its tenant; null: it is gone. */
export async function readFileSize(db: Db, id: string): Promise<number | null> {
  const { rows } = await sql<{ bytes: number }>`
    select bytes from files where id = ${id}::uuid and status in ('processed', 'internal')
  `.execute(db)
  return rows[0]?.bytes ?? null
}

/** The piece of a file that holds this byte; null: it has fewer, or is gone. */
export async function readFilePart(
  db: Db,
  fileId: string,
  byte: number,
): Promise<{ position: number; body: Buffer } | null> {
  const { rows } = await sql<{ position: number; body: Buffer }>`
    select p."position", p.body from file_parts p
    where p.file_id = ${fileId}::uuid and p."position" <= ${byte}::bigint
    order by p."position" desc limit 1
  `.execute(db)
  const [part] = rows
  return part !== undefined && byte < part.position + part.body.length ? part : null
}

/** Deletes a file that its tenant can see. False: there is none. */
export async function deleteFile(db: Db, tenantId: string, id: string): Promise<boolean> {
  const file = await readFileRow(db, tenantId, id)
  return file !== null && (await dropFiles(db, [id])) > 0
}

/**
 * Deletes files with their content, in one transaction. The pieces go in a second statement: its snapshot is taken after the wait for
 * the rows, so it also sees a piece whose writer was faster.
 */
function dropFiles(db: Db, ids: readonly string[]): Promise<number> {
  return db.transaction().execute((transaction) => dropFilesWithin(transaction, ids))
}

/** The same as a part of a transaction. */
export async function dropFilesWithin(db: Db, ids: readonly string[]): Promise<number> {
  const { rows } = await sql`delete from files where id = any(${ids}::uuid[]) returning id`.execute(db)
  await sql`delete from file_parts where file_id = any(${ids}::uuid[])`.execute(db)
  return rows.length
}

/** Gives up an upload whose client has gone. What this process cannot do any more, the sweep does. */
export async function dropUpload(db: Db, id: string): Promise<void> {
  await db.transaction().execute(async (transaction) => {
    const { rows } = await sql`
      select id from files where id = ${id}::uuid and status = 'uploading' for update
    `.execute(transaction)
    if (rows.length > 0) await dropFilesWithin(transaction, [id])
  })
}

/** Files that go, and uploads that have gone silent. A batch that reads its input still needs it. */
const swept = sql`(
  (f.expires_at <= now() and not exists (select from batches b where b.input_file_id = f.id and b.ended_at is null))
  or (f.status = 'uploading' and f.touched_at < now() - make_interval(secs => ${silentUploadSeconds}::integer)))`

/** Pieces of one statement. */
const sweptParts = 1_000

/**
 * Deletes files that have expired and uploads that have gone silent, at most `limit`, and of their content at most about `bytes`: a large file
 * goes piece by piece, and with the last piece its row. Meanwhile nobody sees it, and nothing can be added to it. Rows that somebody holds are left
 * for the next time.
 */
export async function sweepFiles(
  db: Db,
  limit: number,
  { bytes = sweepBytes, skip = [] }: Partial<SweepBounds> = {},
): Promise<SweptRows> {
  return db.transaction().execute(async (transaction) => {
    const { rows } = await sql<{ id: string }>`
      with picked as (
        select f.id from files f where ${swept} and f.id <> all(${skip}::uuid[]) limit ${limit} for update of f skip locked
      )
      update files f set status = 'internal', expires_at = least(f.expires_at, now()) from picked p where f.id = p.id
      returning f.id
    `.execute(transaction)
    if (rows.length === 0) return { count: 0, more: false }
    const ids = rows.map(({ id }) => id)
    await sql`
      with parts as (
        select p.file_id, p."position", pg_column_size(p.body)::bigint as bytes from file_parts p
        where p.file_id = any(${ids}::uuid[])
        order by p.file_id, p."position" limit ${sweptParts}
      ),
      sized as (select file_id, "position", sum(bytes) over (order by file_id, "position") - bytes as before from parts)
      delete from file_parts p using sized s
      where p.file_id = s.file_id and p."position" = s."position" and s.before < ${bytes}
    `.execute(transaction)
    const gone = await sql`
      delete from files f
      where f.id = any(${ids}::uuid[]) and not exists (select from file_parts p where p.file_id = f.id)
      returning f.id
    `.execute(transaction)
    const count = gone.rows.length
    return { count, more: rows.length >= limit || count < rows.length }
  })
}

/** The file that is in the way of {@link sweepFiles}. */
export async function nextSweptFile(db: Db, skip: readonly string[]): Promise<string | null> {
  const { rows } = await sql<{ id: string }>`
    select f.id from files f where ${swept} and f.id <> all(${skip}::uuid[]) limit 1
  `.execute(db)
  return rows[0]?.id ?? null
}

/** Nobody sees these files from this commit on; their content is left to the sweep. */
export async function expireFiles(db: Db, ids: readonly string[]): Promise<void> {
  await sql`
    update files set status = 'internal', expires_at = least(expires_at, now()) where id = any(${ids}::uuid[])
  `.execute(db)
}
