import { isOpen, jobText, settle } from './fake-jobs.ts'
import type { Decision, FakeServer, Verb } from './fake-state.ts'

/** By filter two at a time, so that a client has to come back. */
export function decideMany(fake: FakeServer, verb: Verb, decision: Decision): { data: string[]; next: string | null } {
  const { ids, filter, cursor = '0', accept_duplicate_charge: consent = false, dry_run: dry = false } = decision
  const outcomeOf = (id: string): string => `"id":${JSON.stringify(id)},${decide(fake, verb, id, consent, dry)}`
  if (ids !== undefined) return { data: ids.map(outcomeOf), next: null }
  fake.matching ??= [...fake.jobs.values()]
    .filter((job) => {
      settle(fake, job)
      return filter?.state === undefined || job.state === filter.state
    })
    .map(({ id }) => id)
  const [from, all] = [Number(cursor), fake.matching]
  const more = all.length > from + 2
  if (!more) fake.matching = null
  return { data: all.slice(from, from + 2).map(outcomeOf), next: more ? String(from + 2) : null }
}

function decide(fake: FakeServer, verb: Verb, id: string, consent: boolean, dry: boolean): string {
  const refused = (status: number, code: string, message: string): string =>
    `"status":${status},"error":${JSON.stringify({ code, message, retryable: false })}`
  const job = fake.jobs.get(id)
  if (job === undefined) return refused(404, 'not_found', 'There is no such job.')
  settle(fake, job)
  if (verb === 'retry' && !consent) return refused(400, 'consent_required', 'It may be charged twice.')
  if (verb === 'delete') {
    if (isOpen(job)) return refused(409, 'state_conflict', `The job is ${job.state}.`)
    if (job.state === 'failed' && !consent) return refused(400, 'consent_required', 'It may be paid for again.')
    if (!dry) fake.jobs.delete(id)
    return `"status":200,"job":${JSON.stringify({ id, object: 'job', deleted: !dry })}`
  }
  if (verb !== 'retry' && !isOpen(job)) return refused(409, 'state_conflict', `The job is ${job.state}.`)
  job.state = { cancel: 'cancelled', retry: 'queued', fail: 'failed' }[verb]
  return `"status":200,"job":${jobText(fake, job)}`
}

export function decisionsAbout(fake: FakeServer, id: string): object[] {
  const about = fake.decisions.filter(({ ids = [] }) => ids.includes(id))
  return about.map(({ action, reason, accept_duplicate_charge: consent }, index) => ({
    id: index,
    at: '2026-03-01T10:20:30.456Z',
    action,
    accept_duplicate_charge: consent ?? false,
    reason: reason ?? null,
    by: { key_id: 'k', key_name: 'night shift' },
    from_state: 'uncertain',
    to_state: 'queued',
    attempts: 1,
    generation: 1,
    paid_attempts: 1,
  }))
}
