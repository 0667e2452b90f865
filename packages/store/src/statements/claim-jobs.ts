import type { OnUncertain, Operation, RequestHeaders } from '@askonce/core'
import { hot } from '../hot.ts'
import type { Db } from '../tables.ts'

/** A claimed job: everything the call and its end need. From its commit on the attempt counts as paid. */
export interface Claim {
  id: string
  attempt: number
  generation: number
  tenant_id: string
  operation: Operation
  model: string
  lane: string
  request: Buffer
  /** Headers of the caller that go with it. */
  request_headers: RequestHeaders | null
  /** Whether the request asks for a stream. */
  streamed: boolean
  timeout_ms: number
  on_uncertain: OnUncertain
  /** Reruns with backoff since the last request to run. */
  reruns: number
  /** What names this attempt to the provider; nobody else knows it. */
  mark: string
  priority: number
  run_at: Date
  /** Milliseconds since the job could first have run in this round, by the database clock. */
  queue_ms: number
}

/** Whose turn it is: with credit left that tenant goes on, else the one behind it is next. Tenants are in the order of their names. */
export interface Turn {
  tenant: string
  credit: number
}

/** Jobs of one tenant, model and priority. Nothing of it is looked for before `since`. */
export interface KnownGroup {
  tenant: string
  model: string
  priority: number
  since: Date
}

export interface ClaimRequest {
  workerId: string
  /** Number of this claim, of its worker's. It is written on the attempts. */
  number: number
  lane: string
  /** Calls that may be made now. */
  places: number
  turn: Turn
  /** What has waited for an hour comes before what has priority. */
  agedFirst: boolean
  /** In the order of tenant, model (both as bytes) and priority. */
  known: readonly KnownGroup[]
}

export interface Claimed {
  claims: Claim[]
  /** Of the next claim. */
  turn: Turn
  /** There may be more that could run now. */
  more: boolean
  /** A tenant has as much running as it may have: the end of a call makes room. */
  atLimit: boolean
}

type ClaimRow =
  | (Claim & { next_tenant: null })
  | { id: null; next_tenant: string; next_credit: number; more: boolean; at_limit: boolean }

/**
 * Picks what runs next in a lane, claims it and writes its attempts, in one commit, before any request leaves: the function `claim_jobs` of the
 * schema says how. A worker that was declared dead, and a lane that is closed, get nothing.
 */
export async function claimJobs(db: Db, request: ClaimRequest): Promise<Claimed> {
  const { workerId, number, lane, places, turn, agedFirst, known } = request
  const rows = await hot<ClaimRow>(db, 'claim_jobs')`
    select * from claim_jobs(
      ${workerId}::uuid, ${number}::bigint, ${lane}, ${places}::integer, ${turn.tenant}, ${turn.credit}::integer, ${agedFirst}::boolean,
      ${known.map(({ tenant }) => tenant)}::text[], ${known.map(({ model }) => model)}::text[],
      ${known.map(({ priority }) => priority)}::smallint[], ${known.map(({ since }) => since)}::timestamptz[]
    )
  `
  const last = rows.at(-1)
  // Without a last row nothing was looked for.
  if (last === undefined || last.id !== null) return { claims: [], turn, more: false, atLimit: false }
  return {
    claims: rows.slice(0, -1) as Claim[],
    turn: { tenant: last.next_tenant, credit: last.next_credit },
    more: last.more,
    atLimit: last.at_limit,
  }
}
