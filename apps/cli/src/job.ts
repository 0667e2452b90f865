import type { JobError, JobState, WaitKind } from '@askonce/core'
import { rawMembers } from './raw-json.ts'

/** A job as the server shows it, without its answer. */
export interface Job {
  id: string
  key: string
  operation: string
  model: string
  state: JobState
  generation: number
  attempts: number
  replayed?: boolean
  error: JobError | null
  flags: string[]
  waiting_for: { kind: WaitKind; name: string; reason: string; until: string | null } | null
  usage: {
    input_tokens: number | null
    output_tokens: number | null
    cost_usd: number | null
    paid_attempts: number
    maybe_paid_attempts: number
  }
  metadata: Record<string, string> | null
  created_at: string
  run_at: string
  started_at: string | null
  completed_at: string | null
  deadline_at: string
  expires_at: string | null
  /** Where the answer is, if it is too large for the list that this job came in. */
  response_url?: string
}

export interface AnsweredJob {
  job: Job
  /** The provider's answer exactly as it came; null: there is none. */
  response: string | null
}

/** A job from its JSON text, the answer left as text. */
export function readJob(text: string): AnsweredJob {
  const members = rawMembers(text)
  const response = members.find(({ name }) => name === 'response')?.text ?? 'null'
  const rest = members.filter(({ name }) => name !== 'response')
  const job = JSON.parse(
    `{${rest.map(({ name, text: value }) => `${JSON.stringify(name)}:${value}`).join(',')}}`,
  ) as Job
  return { job, response: response === 'null' ? null : response }
}

export function isSimulated(job: Job): boolean {
  return job.flags.includes('simulated')
}

/** Why there is no answer, in one line: the reason inside the job, or what its state means. */
export function failureOf({ id, state, error }: Job): { code: string; message: string } {
  switch (state) {
    case 'uncertain':
      return {
        code: error?.code ?? 'job_uncertain',
        message: `${error?.message ?? 'The call may have been billed'}. Held for a decision: askonce retry ${id} --accept-duplicate-charge, or askonce fail ${id}`,
      }
    case 'cancelled':
      return { code: 'job_cancelled', message: `The job was cancelled; askonce retry ${id} runs it again` }
    default:
      return { code: error?.code ?? state, message: error?.message ?? `The job is ${state}` }
  }
}
