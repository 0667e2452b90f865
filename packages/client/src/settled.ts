import type { Job } from './types.ts'

/** Nothing more happens to such a job unless somebody asks for it. */
export function isSettled({ state }: Pick<Job, 'state'>): boolean {
  return state !== 'queued' && state !== 'running'
}
