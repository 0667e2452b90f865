import { measureJson, type CallBounds } from '@askonce/core'
import { createThreads, type Threads } from '@askonce/threads'
import { IntakeError } from './error.ts'
import type { ThreadTask } from './intake-thread.ts'
import type { NewJob } from '@askonce/store'
import type { IntakeSettings, PreparedJob } from './new-job.ts'
import { runTask, type TaskName, type TaskResult, type Tasks } from './tasks.ts'

/** So many values, in a body of so many bytes, are done with in some twenty milliseconds, whatever they are. */
const lightValues = 1_000
const lightBytes = 256 * 1024
/** A body of so few bytes cannot hold too many values: it is not looked at. */
const tinyBytes = 4_096
/** Two cores of one process are enough for what is large; what is small does not wait for it. */
const maxThreads = 2
/** A million values and what is said of them; the API has 1 GiB in all. */
const maxHeapMb = 256

/** The most that a call with these bounds can cost and use; null: unknown. */
export type ReserveOf = (lane: string, model: string, bounds: CallBounds) => Reserve

/** US dollars and tokens, as `NewJob` has them. */
export type Reserve = Pick<NewJob, 'reserveUsd' | 'reserveTokens'>

/** Makes rows of what was sent: at once where that takes no time, else in a thread, so that nobody waits behind somebody else's large body. */
export class Intake {
  private readonly settings: IntakeSettings
  /** What decides, beside its body, whether a request can become a job, and on which lane. */
  readonly settingsText: string
  private readonly reserveOf: ReserveOf
  private readonly threads: Threads<ThreadTask, TaskResult<TaskName>>

  constructor({ limits, lanes }: IntakeSettings, reserveOf: ReserveOf) {
    // Without the keys of providers, which no thread needs.
    this.settingsText = JSON.stringify({ limits, lanes }, (name, value: unknown) => (name === 'apiKey' ? null : value))
    this.settings = JSON.parse(this.settingsText) as IntakeSettings
    this.reserveOf = reserveOf
    this.threads = createThreads({ beside: import.meta.url, module: 'intake-thread', maxThreads, maxHeapMb })
  }

  /** @throws IntakeError when it cannot become a job */
  async submission(given: Tasks['submission']['needs']): Promise<PreparedJob> {
    return this.whole(await this.run('submission', given, given.body))
  }

  /** @throws IntakeError when it cannot become a job */
  async item(given: Tasks['item']['needs']): Promise<PreparedJob> {
    return this.whole(await this.run('item', given, given.body))
  }

  /** @throws IntakeError when it cannot become a job */
  async call(given: Tasks['call']['needs']): Promise<Tasks['call']['makes']> {
    return this.whole(await this.run('call', given, given.body))
  }

  /** Nothing is thrown for what is wrong with the line. */
  async line(given: Tasks['line']['needs']): Promise<Tasks['line']['makes']> {
    try {
      const line = await this.run('line', given, given.body)
      return line.ok ? this.whole(line) : line
    } catch (error) {
      if (!(error instanceof IntakeError)) throw error
      return { ok: false, customId: null, fault: { code: error.code, message: error.message, param: error.param } }
    }
  }

  isStoredWith(given: Tasks['stored']['needs']): Promise<boolean> {
    return this.run('stored', given, given.body)
  }

  differences(given: Tasks['differences']['needs']): Promise<string[]> {
    const { left, right } = given
    return this.run('differences', given, left.text.length > right.text.length ? left.text : right.text)
  }

  close(): Promise<void> {
    return this.threads.close()
  }

  private whole<Made extends PreparedJob>(made: Made): Made {
    const { job } = made
    Object.assign(job, this.reserveOf(job.lane, job.model, made.bounds))
    // A copy from a thread has lost its class.
    job.request = asBuffer(job.request)
    job.fingerprint = asBuffer(job.fingerprint)
    return made
  }

  private async run<Name extends TaskName>(
    name: Name,
    given: Tasks[Name]['needs'],
    body: Uint8Array,
  ): Promise<Tasks[Name]['makes']> {
    if (isLight(body)) return runTask(this.settings, name, given)
    const task = { settings: this.settingsText, name, given } as ThreadTask
    const result = (await this.threads.run(task).catch(refuseTooLarge)) as TaskResult<Name>
    if (result.ok) return result.made
    throw new IntakeError(result.code, result.detail, result.param)
  }
}

/** Whether nobody would notice that it is parsed, checked and hashed here and now. */
function isLight(body: Uint8Array): boolean {
  if (body.length <= tinyBytes) return true
  return body.length <= lightBytes && measureJson(body).values <= lightValues
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** A thread that dies of its heap takes nothing with it but its task. */
function refuseTooLarge(error: unknown): never {
  if ((error as { code?: unknown }).code !== 'ERR_WORKER_OUT_OF_MEMORY') throw error
  throw new IntakeError('payload_too_large', 'The body takes more memory to read than this server allows.', '')
}
