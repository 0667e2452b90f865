import type { ErrorCode } from '@askonce/core'

/** Why something cannot become a job. */
export type IntakeCode = Extract<
  ErrorCode,
  'invalid_request' | 'payload_too_large' | 'idempotency_key_missing' | 'idempotency_key_invalid'
>

/** What somebody asked for cannot become a job. The message is the `detail` that they read; it repeats no value of theirs. */
export class IntakeError extends Error {
  readonly code: IntakeCode
  /** JSON pointer to the fault in what was sent; `` for the whole. */
  readonly param: string

  constructor(code: IntakeCode, detail: string, param: string) {
    super(detail)
    this.code = code
    this.param = param
  }
}
