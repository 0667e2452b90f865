import type { ErrorCode, FailureVerdict, Verdict } from '@askonce/core'
import { requestId, type Broken } from './exchange.ts'
import type { Scrub } from './scrub.ts'

/** Lines of ERRORS.md about calls that brought no complete answer. Once a byte may have left, the fate is unknown. */
export function verdictOfBroken(broken: Broken, scrub: Scrub): Verdict {
  const unsent = (code: ErrorCode, message: string): FailureVerdict =>
    verdict(broken, 'rerun', 'none', code, scrub(message))
  const unknown = (code: ErrorCode, message: string): FailureVerdict =>
    verdict(broken, 'unknown', 'maybe', code, scrub(message))

  if (!broken.sent) {
    return broken.reason === 'aborted'
      ? unsent('not_sent', 'Aborted before the request was sent.')
      : unsent('connection_failed', `No connection to the provider, nothing was sent: ${broken.detail}`)
  }
  if (broken.reason === 'timeout') return unknown('timeout', `The call timed out: ${broken.detail}`)
  if (broken.reason === 'aborted') return unknown('connection_lost', 'Aborted after the request was sent.')
  if (broken.reason === 'garbled' || broken.status !== null) {
    return unknown('broken_answer', `The answer broke off or is not HTTP: ${broken.detail}`)
  }
  return unknown('connection_lost', `The connection ended before an answer came: ${broken.detail}`)
}

function verdict(
  broken: Broken,
  kind: FailureVerdict['kind'],
  billing: FailureVerdict['billing'],
  code: ErrorCode,
  message: string,
): FailureVerdict {
  return {
    kind,
    billing,
    sent: broken.sent,
    code,
    message,
    providerStatus: broken.status,
    providerRequestId: requestId(broken.headers),
    retryAfterMs: null,
    body: null,
    overloaded: false,
  }
}
