import { findRedis, prepareCluster } from '@askonce/testkit'

/**
 * What every file with servers needs, once: redis-server is installed where that is possible, before several files want to at once, and
 * a database cluster is made that they copy. A test that needs what cannot be had says so itself; the others run.
 */
export async function setup(): Promise<(() => Promise<void>) | undefined> {
  try {
    findRedis()
  } catch {}
  return prepareCluster().catch(() => undefined)
}
