import { findPgbouncer, findRedis, prepareCluster } from '@askonce/testkit'

/**
 * What every file with servers needs, once: redis-server and pgbouncer are installed where that is possible, before several files want to at once, and
 * a database cluster is made that they copy. A test that needs what cannot be had says so itself; the others run.
 */
export async function setup(): Promise<(() => Promise<void>) | undefined> {
  for (const find of [findRedis, findPgbouncer]) {
    try {
      find()
    } catch {}
  }
  return prepareCluster().catch(() => undefined)
}
