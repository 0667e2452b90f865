import { query } from './query.ts'

/** A place in the write-ahead log of a server. */
export async function walPosition(url: string): Promise<string> {
  const [row] = await query<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn')
  return row?.lsn ?? ''
}

export interface Wal {
  /** Of all records, without images of whole pages. */
  bytes: number
  /** Of such images. */
  pageImages: number
}

/**
 * What has been written since then. The first change of a page after a checkpoint writes the whole page: these images say how long ago the
 * checkpoint was and how many pages there are, and nothing of what a job costs in the long run. So they are counted apart.
 */
export async function walSince(url: string, lsn: string): Promise<Wal> {
  await query(url, 'create extension if not exists pg_walinspect')
  const [row] = await query<Wal>(
    url,
    `select sum(record_size)::float8 as bytes, sum(fpi_size)::float8 as "pageImages"
     from pg_get_wal_stats($1::pg_lsn, pg_current_wal_flush_lsn())`,
    [lsn],
  )
  return row ?? { bytes: Number.NaN, pageImages: Number.NaN }
}
