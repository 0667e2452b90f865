import { betaHeaders, sortedBetas, type RequestHeaders } from '@askonce/core'
import type { FastifyRequest } from 'fastify'
import { Problem } from '../problem.ts'
import { headerValues } from '../route.ts'

const maxValueLength = 1_024
const maxBytes = 4_096

/**
 * The headers of an SDK's request that go to the provider with it: betas, and what the configuration lists. Null: none.
 * @throws Problem when they are larger than a row should carry, or hold what no header can
 */
export function requestHeaders(request: FastifyRequest, forwarded: readonly string[]): RequestHeaders | null {
  const found: [name: string, value: string][] = []
  for (const name of betaHeaders) {
    const betas = sortedBetas(headerValues(request, name))
    if (betas === '') continue
    check(name, betas)
    found.push([name, betas])
  }
  for (const name of forwarded) {
    const value = request.headers[name]
    if (value === undefined || value === '') continue
    check(name, String(value))
    found.push([name, String(value)])
  }
  if (found.length === 0) return null
  const size = found.reduce((bytes, [name, value]) => bytes + name.length + value.length, 0)
  if (size > maxBytes)
    throw refuse(found[0]?.[0] ?? '', `the headers that are sent on have more than ${maxBytes} bytes`)
  return Object.fromEntries(found)
}

/** Headers that mean something on the routes of the SDKs only. */
const ofSdkRoutes = [...betaHeaders, 'askonce-key', 'askonce-options']

/** @throws Problem when a native request has one: it would change nothing, and its sender believes that it does */
export function refuseSdkHeaders({ headers }: FastifyRequest): void {
  const name = ofSdkRoutes.find((header) => headers[header] !== undefined)
  if (name === undefined) return
  throw refuse(name, 'means nothing here, only on the routes below /openai/v1 and /anthropic')
}

/** Betas of the batch resource itself, which is ours: no line is asked with them. */
const ofBatches = /^message-batches-/

/** Those of a request that makes a batch, for each of its lines; as JSON text. */
export function batchHeaders(request: FastifyRequest, forwarded: readonly string[]): string | null {
  const { 'anthropic-beta': betas, ...others } = requestHeaders(request, forwarded) ?? {}
  const left = sortedBetas((betas ?? '').split(',').filter((beta) => !ofBatches.test(beta)))
  const headers = left === '' ? others : { 'anthropic-beta': left, ...others }
  return Object.keys(headers).length === 0 ? null : JSON.stringify(headers)
}

function check(name: string, value: string): void {
  if (value.length > maxValueLength) throw refuse(name, `must have at most ${maxValueLength} characters`)
  if (!/^[\x20-\x7e]*$/.test(value)) throw refuse(name, 'must be printable ASCII')
}

function refuse(name: string, why: string): Problem {
  return new Problem('invalid_request', `${name}: ${why}`, { param: name })
}
