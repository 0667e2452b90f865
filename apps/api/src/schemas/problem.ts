import { errorRegistry, jobStates, type ErrorCode } from '@askonce/core'
import { z } from 'zod'
import { problemExample } from './examples.ts'

const codes = Object.keys(errorRegistry) as [ErrorCode, ...ErrorCode[]]

/** Every error answer: RFC 9457, and an `error` member where the OpenAI SDK looks. */
export const problem = z
  .strictObject({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    instance: z.string().describe('Names the request, as `x-request-id` does'),
    code: z.enum(codes),
    retryable: z.boolean().describe('Whether the same request may succeed later'),
    pointers: z.array(z.string()).optional().describe('JSON pointers to the members in which two requests differ'),
    state: z.enum(jobStates).optional().describe('State that the job is in'),
    error: z.strictObject({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable().describe('A JSON pointer into the body, or the name of a header or parameter'),
      code: z.enum(codes),
    }),
  })
  .meta({ examples: [problemExample] })
