import { randomUUID } from 'node:crypto'
import { claimJobs, type Claim, type Db } from '@askonce/store'

let claims = 0

/**
 * Claims these jobs and no others, those of them that may run. A claim names a lane and no job, so for that moment they are in one of their own.
 * `query` may change any table.
 */
export async function claimThese(
  db: Db,
  query: (text: string, values: unknown[]) => Promise<unknown[]>,
  workerId: string,
  ids: readonly string[],
): Promise<Claim[]> {
  const aside = `aside-${randomUUID().slice(0, 8)}`
  const moved = (await query(
    `update jobs j set lane = $1 from (select id, lane from jobs where id = any($2::uuid[])) before where j.id = before.id
     returning j.id, before.lane as lane`,
    [aside, ids],
  )) as { id: string; lane: string }[]
  const turn = { tenant: '', credit: 0 }
  claims += 1
  const { claims: claimed } = await claimJobs(db, {
    workerId,
    number: claims,
    lane: aside,
    places: ids.length,
    turn,
    agedFirst: false,
    known: [],
  })
  const laneOf = new Map(moved.map(({ id, lane }) => [id, lane]))
  for (const lane of new Set(laneOf.values())) {
    const back = moved.filter((one) => one.lane === lane).map(({ id }) => id)
    await query('update jobs set lane = $1 where id = any($2::uuid[])', [lane, back])
    await query('update attempts set lane = $1 where job_id = any($2::uuid[]) and lane = $3', [lane, back, aside])
  }
  for (const claim of claimed) claim.lane = laneOf.get(claim.id) ?? claim.lane
  return claimed
}
