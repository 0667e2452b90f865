import { findRedis } from '@askonce/testkit'

/**
 * Installs redis-server where that is possible, before several test files want to at once. A test that needs it and has none
 * says so itself; those that need none run.
 */
export function setup(): void {
  try {
    findRedis()
  } catch {}
}
