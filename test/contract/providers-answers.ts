import type { Behaviour } from '@askonce/testkit'
import type { RealKind } from './providers-lines.ts'

/** A line of ERRORS.md about a 200 that is whole: it is paid for and stored, flagged where it is no plain success. */
export interface Answered {
  name: string
  kind: RealKind
  body: object
  flags: string[]
}

export const answered: readonly Answered[] = [
  { name: 'length', kind: 'openai', body: { choices: [{ finish_reason: 'length' }] }, flags: ['truncated'] },
  {
    name: 'content_filter',
    kind: 'openai',
    body: { choices: [{ finish_reason: 'content_filter' }] },
    flags: ['refused'],
  },
  { name: 'max_tokens', kind: 'anthropic', body: { content: [], stop_reason: 'max_tokens' }, flags: ['truncated'] },
  { name: 'refusal', kind: 'anthropic', body: { content: [], stop_reason: 'refusal' }, flags: ['refused'] },
  { name: 'complete', kind: 'openai', body: { choices: [{ finish_reason: 'stop' }] }, flags: [] },
  { name: 'complete', kind: 'anthropic', body: { content: [], stop_reason: 'end_turn' }, flags: [] },
]

/** A line about a call whose fate is unknown: after sending, no whole answer came. Every provider can do it. */
export interface Broken {
  name: string
  behaviour: Behaviour
  code: string
  status: number | null
}

export const broken: readonly Broken[] = [
  { name: 'reset instead of an answer', behaviour: { kind: 'reset' }, code: 'connection_lost', status: null },
  {
    name: 'closed without an answer',
    behaviour: { kind: 'cut', after: 'nothing' },
    code: 'connection_lost',
    status: null,
  },
  { name: '200 cut after its head', behaviour: { kind: 'cut', after: 'head' }, code: 'broken_answer', status: 200 },
  { name: '200 cut in its body', behaviour: { kind: 'cut', after: 'half' }, code: 'broken_answer', status: 200 },
  { name: '200 with a page', behaviour: { kind: 'garbage' }, code: 'broken_answer', status: 200 },
  { name: '200 with nothing', behaviour: { kind: 'garbage', body: '' }, code: 'broken_answer', status: 200 },
  {
    name: '200 with half JSON',
    behaviour: { kind: 'garbage', body: '{"choices":[' },
    code: 'broken_answer',
    status: 200,
  },
  {
    name: '200 with an error',
    behaviour: { kind: 'garbage', body: '{"error":{"message":"no"}}' },
    code: 'broken_answer',
    status: 200,
  },
  {
    name: '200 with other JSON',
    behaviour: { kind: 'garbage', body: '{"ok":true}' },
    code: 'broken_answer',
    status: 200,
  },
]
