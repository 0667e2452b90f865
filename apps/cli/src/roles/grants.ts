import { migrateQueueSchema, readMissingQueueGrants, readQueueMigrateNeeds } from '@askonce/queue'
import {
  cannotMigrateText,
  CannotMigrateError,
  GrantsError,
  migrate,
  missingText,
  readMigrateNeeds,
  readMissingGrants,
} from '@askonce/store'

/** Refuses a role that may not do what a process of ours does, with everything that it lacks. Rejects with GrantsError. */
export async function requireGrants(url: string, queueInPostgres: boolean): Promise<void> {
  const { missing, ...place } = await readMissingGrants(url)
  if (queueInPostgres) missing.push(...(await readMissingQueueGrants(url)))
  if (missing.length > 0) throw new GrantsError(missingText(place, missing))
}

/** Applies what is missing of both schemas, once nothing stands in the way of either; returns the names of ours. */
export async function migrateBoth(url: string, queueInPostgres: boolean, signal: AbortSignal): Promise<string[]> {
  const needs = await readMigrateNeeds(url)
  if (queueInPostgres) needs.push(...(await readQueueMigrateNeeds(url)))
  if (needs.length > 0) throw new CannotMigrateError(cannotMigrateText(needs))
  const applied = await migrate(url, signal)
  signal.throwIfAborted()
  if (queueInPostgres) await migrateQueueSchema(url)
  return applied
}
