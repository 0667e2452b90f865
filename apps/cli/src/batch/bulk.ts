import { ApiError, CliError, exitCodes } from '../errors.ts'
import type { Client } from '../http.ts'
import { readJob, type AnsweredJob } from '../job.ts'
import { rawElements, rawMembers } from '../raw-json.ts'

/** What the server says to one item of a bulk submission. */
export type ItemOutcome =
  | { kind: 'job'; answered: AnsweredJob }
  | { kind: 'refused'; code: string; message: string }
  /** Not accepted now; the same item may be later. */
  | { kind: 'later'; message: string }

/** Checking and committing hundreds of items takes a server under load a while. */
const bulkWaitSeconds = 30

/** Submits items, JSON each, in one request and returns one outcome per item, in order. */
export async function submitBulk(client: Client, items: readonly string[]): Promise<ItemOutcome[]> {
  try {
    const { bytes } = await client.send({
      method: 'POST',
      path: '/v1/jobs/bulk',
      body: `{"jobs":[${items.join(',')}]}`,
      waitSeconds: bulkWaitSeconds,
    })
    return readOutcomes(bytes.toString('utf8'), items.length)
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 413) throw error
    // The server's limit is below ours: halve until the line that is too large stands alone.
    if (items.length === 1) return [{ kind: 'refused', code: error.code, message: error.message }]
    const middle = Math.ceil(items.length / 2)
    return [...(await submitBulk(client, items.slice(0, middle))), ...(await submitBulk(client, items.slice(middle)))]
  }
}

function readOutcomes(text: string, expected: number): ItemOutcome[] {
  const data = rawMembers(text).find(({ name }) => name === 'data')?.text ?? '[]'
  const outcomes = rawElements(data).map(readOutcome)
  if (outcomes.length === expected) return outcomes
  const message = `the server answered ${outcomes.length} of ${expected} items`
  throw new CliError(exitCodes.failed, message, 'Do its version and that of this program differ?')
}

function readOutcome(text: string): ItemOutcome {
  const members = rawMembers(text)
  const member = (name: string): string | undefined => members.find((candidate) => candidate.name === name)?.text
  const job = member('job')
  if (job !== undefined && job !== 'null') return { kind: 'job', answered: readJob(job) }
  const error = JSON.parse(member('error') ?? '{}') as ItemError
  const message = error.message ?? 'refused without a reason'
  if (error.retryable === true) return { kind: 'later', message }
  return { kind: 'refused', code: error.code ?? 'unknown', message }
}

interface ItemError {
  code?: string
  message?: string
  retryable?: boolean
}
