import { query } from './query.ts'

/** What was done to the tables of a database, by Postgres' own statistics. */
export interface Touched {
  /** Pages of tables, of what is stored beside them, and of indexes: each time that one was looked at. */
  pages: number
  updates: number
  /** Updates that needed no new entry in any index. */
  hot: number
}

/** Complete only when the processes that used the database have ended: a session hands in its counts late. */
export async function touched(url: string): Promise<Touched> {
  const [row] = await query<Touched>(
    url,
    `select
       (select sum(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0)
          + coalesce(toast_blks_hit + toast_blks_read, 0) + coalesce(tidx_blks_hit + tidx_blks_read, 0))
        from pg_statio_user_tables)::float8 as pages,
       sum(n_tup_upd)::float8 as updates, sum(n_tup_hot_upd)::float8 as hot
     from pg_stat_user_tables`,
  )
  return row ?? { pages: Number.NaN, updates: Number.NaN, hot: Number.NaN }
}
