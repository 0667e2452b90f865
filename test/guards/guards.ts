import type { Guard } from './guard.ts'
import { endGuards } from './guards-ends.ts'
import { jobGuards } from './guards-jobs.ts'
import { processGuards } from './guards-processes.ts'

/** All guards, in the order in which they are broken and listed. */
export const guards: readonly Guard[] = [...jobGuards, ...endGuards, ...processGuards]
