import { setTimeout as sleep } from 'node:timers/promises'
import { maxTokens, model } from './tenants.ts'
import { answerSha, type Entry, type Policy, type RecordFile } from './record.ts'

/** A job as the API shows it, as far as it matters here. */
export interface JobReply {
  id: string
  key: string
  state: string
  response: unknown
}

export interface Submission {
  key: string
  policy: Policy
  maxPaid: number
}

export interface ClientOptions {
  /** Base addresses of the APIs, which stay the same for the whole run. */
  addresses: readonly string[]
  apiKey: string
  record: RecordFile
  /** Longest time that a call to the provider may take. */
  callTimeoutSeconds: number
}

const settled = new Set(['succeeded', 'failed', 'cancelled', 'uncertain'])
const bulkItems = 500

/** Whether nothing more happens to the job by itself. */
export function isSettled({ state }: JobReply): boolean {
  return settled.has(state)
}

/** Submits and reads through the HTTP API, as a producer does, and writes down whatever it was promised or shown. */
export class Client {
  private readonly options: ClientOptions
  private turn = 0

  constructor(options: ClientOptions) {
    this.options = options
  }

  /** What is about to be submitted for the first time. */
  async plan(submissions: readonly Submission[]): Promise<void> {
    await this.options.record.append(submissions.map((one) => ({ type: 'asked', ...one })))
  }

  /** Submits one key. Null: no 2xx, so ask again. `waitSeconds` waits for the answer, `address` names the API. */
  async submit(one: Submission, waitSeconds = 0, address = this.address()): Promise<JobReply | null> {
    const headers: Record<string, string> = { 'idempotency-key': one.key }
    if (waitSeconds > 0) headers['prefer'] = `wait=${waitSeconds}`
    const reply = await this.call(address, 'POST', '/v1/jobs', this.body(one), headers, waitSeconds)
    if (reply === null) return null
    const job = reply as JobReply
    await this.options.record.append(entriesOf(job))
    return job
  }

  /** Submits many at once; the replies that were 2xx. Null: the request as a whole was not answered. */
  async submitMany(list: readonly Submission[]): Promise<JobReply[] | null> {
    const jobs = list.map((one) => ({ key: one.key, ...this.body(one) }))
    const reply = await this.call(this.address(), 'POST', '/v1/jobs/bulk', { jobs }, {}, 30)
    if (reply === null) return null
    const replies = (reply as { data: { status: number; job?: JobReply }[] }).data.flatMap(({ status, job }) =>
      status < 300 && job !== undefined ? [job] : [],
    )
    await this.options.record.append(replies.flatMap(entriesOf))
    return replies
  }

  /** Accepts a second charge for a held job. Whether that arrives, and is done, the table of decisions says. */
  async consent({ id, key }: JobReply): Promise<void> {
    await this.options.record.append([{ type: 'consent', key }])
    await this.call(this.address(), 'POST', `/v1/jobs/${id}/retry`, { accept_duplicate_charge: true }, {}, 0)
  }

  /**
   * When everything is over: submits all of it again until each key has ended or is held, and writes down what the API says.
   * Returns the keys that had not come so far after `limitMs`.
   */
  async settle(list: readonly Submission[], limitMs: number): Promise<string[]> {
    const giveUpAt = performance.now() + limitMs
    let open = [...list]
    for (;;) {
      const left: Submission[] = []
      for (let from = 0; from < open.length; from += bulkItems) {
        const part = open.slice(from, from + bulkItems)
        const replies = new Map((await this.submitMany(part))?.map((job) => [job.key, job]))
        const finals: Entry[] = []
        for (const one of part) {
          const job = replies.get(one.key)
          if (job === undefined || !isSettled(job)) left.push(one)
          else finals.push({ type: 'final', key: job.key, id: job.id, state: job.state, sha: shaOf(job) })
        }
        await this.options.record.append(finals)
      }
      open = left
      if (open.length === 0 || performance.now() > giveUpAt) return open.map(({ key }) => key)
      await sleep(500)
    }
  }

  /** The next API in turn. */
  private address(): string {
    const { addresses } = this.options
    this.turn = (this.turn + 1) % addresses.length
    return addresses[this.turn] ?? ''
  }

  private body({ key, policy, maxPaid }: Submission): object {
    return {
      operation: 'chat.completions',
      // `user` is the upstream's name for the key, under which it counts.
      request: {
        model,
        user: key,
        max_tokens: maxTokens,
        messages: [{ role: 'user', content: `the question of ${key}` }],
      },
      on_uncertain: policy,
      max_paid_attempts: maxPaid,
      timeout_seconds: this.options.callTimeoutSeconds,
    }
  }

  /** The JSON of a 2xx; null for everything else, a connection that breaks included. */
  private async call(
    address: string,
    method: string,
    path: string,
    body: object,
    headers: Record<string, string>,
    waitSeconds: number,
  ): Promise<unknown> {
    try {
      const response = await fetch(`${address}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${this.options.apiKey}`,
          'content-type': 'application/json',
          ...headers,
        },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout((waitSeconds + 10) * 1000),
      })
      const text = await response.text()
      return response.ok ? (JSON.parse(text) as unknown) : null
    } catch {
      return null
    }
  }
}

function shaOf(job: JobReply): string | null {
  return job.response === null ? null : answerSha(job.response)
}

function entriesOf(job: JobReply): Entry[] {
  const sha = shaOf(job)
  const accepted: Entry = { type: 'accepted', key: job.key, id: job.id }
  return sha === null ? [accepted] : [accepted, { type: 'answer', key: job.key, sha }]
}
