import { findHttpProxy, findOpenssl, findPgbouncer, findRedis, prepareCluster } from '@askonce/testkit'

/**
 * What every file with servers needs, once: redis-server, pgbouncer, the reverse proxies and openssl are installed where that is possible, before several files want to at once, and
 * a database cluster is made that they copy. A test that needs what cannot be had says so itself; the others run.
 */
export async function setup(): Promise<(() => Promise<void>) | undefined> {
  const proxies = (['nginx', 'haproxy', 'caddy'] as const).map((name) => () => findHttpProxy(name))
  for (const find of [findRedis, findPgbouncer, findOpenssl, ...proxies]) {
    try {
      find()
    } catch {}
  }
  return prepareCluster().catch(() => undefined)
}
