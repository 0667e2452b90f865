import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { isTerminal } from '@askonce/core'
import { OverloadedError, type SubmitResult } from '@askonce/store'
import { awakeMs } from '@askonce/timing'
import { outcomeJson, type OutcomePart } from './bulk-outcomes.ts'
import type { Parts } from './context.ts'
import { jobJson, type JsonPiece } from './job-view.ts'
import type { PreparedJob } from '@askonce/intake'
import { Problem, toProblem } from './problem.ts'
import type { Caller } from './route.ts'
import { isReplayed, logSubmission, reusedKey, withAnswer } from './submission-answer.ts'

/** Items of one request that are submitted at once: a large bulk leaves room for others. */
const maxChunkSize = 500
/** Others get the processor when items have been checked for so long. */
const sliceMs = 10
/** How long a chunk waits for room in the group; the first one does not wait. */
const waitForRoomMs = 10_000
const roomCheckMs = 20
/** Of so many reused keys the differing members are looked up; each is a read of its own. */
const maxExplained = 100

/** Items whose answers are read and held at the same time: each may be of a megabyte. */
const shownAtOnce = 8
/** A part of the answer is sent when it has so many bytes. */
const partBytes = 256 * 1024

type Settled = SubmitResult | Problem
type Item = { index: number; prepared: PreparedJob } | { index: number; problem: Problem }

/** One bulk request: its items in chunks, in order, with an outcome each. */
export class BulkSubmission {
  private readonly parts: Parts
  private readonly caller: Pick<Caller, 'tenantId' | 'defaults' | 'limits'>
  private readonly requestId: string
  /** As they came. Each is read when its turn comes: a long file must not hold up everybody. */
  private readonly items: readonly Buffer[]
  private readonly chunkSize: number
  /** Keys that an earlier item of this request has. */
  private readonly seen = new Set<string>()
  private explained = 0
  /** What is left of the first chunk's outcomes. */
  private begun: AsyncGenerator<OutcomePart, void, undefined> | null = null
  /** Set when the database went away: what has not been tried gets the same answer. */
  private away: Problem | null = null

  constructor(
    parts: Parts,
    caller: Pick<Caller, 'tenantId' | 'defaults' | 'limits'>,
    requestId: string,
    items: readonly Buffer[],
  ) {
    this.parts = parts
    this.caller = caller
    this.requestId = requestId
    this.items = items
    this.chunkSize = Math.min(maxChunkSize, parts.submissions.maxWaiting)
  }

  /**
   * The beginning of the outcomes. {@link rest} goes on behind it.
   * @throws Problem when nothing of the first chunk was accepted because the server is overloaded or the database away
   */
  async first(): Promise<OutcomePart> {
    const outcomes = await this.settle(0, Promise.resolve())
    const problems = outcomes.flatMap((outcome) =>
      outcome instanceof Problem && outcome.status === 503 ? [outcome] : [],
    )
    if (problems.length === outcomes.length && problems[0] !== undefined) throw problems[0]
    this.begun = this.show(0, outcomes)
    const first = await this.begun.next()
    // It always has a part; the type of a generator does not know.
    return first.done === true ? { items: [], nextCursor: null } : first.value
  }

  /** The outcomes of the others; the next chunk is under way while one is being sent. */
  async *rest(): AsyncGenerator<OutcomePart> {
    if (this.begun !== null) yield* this.begun
    let current: Promise<Settled[]> | null = null
    for (let start = this.chunkSize; start < this.items.length; start += this.chunkSize) {
      const outcomes: Promise<Settled[]> = current ?? this.settle(start, Promise.resolve())
      const next = start + this.chunkSize
      current = next < this.items.length ? this.settle(next, outcomes) : null
      yield* this.show(start, await outcomes)
    }
  }

  /** A part after the other, with the answers in them: those of a whole chunk may be half a gigabyte. */
  private async *show(start: number, outcomes: readonly Settled[]): AsyncGenerator<OutcomePart, void, undefined> {
    let items: JsonPiece[] = []
    let bytes = 0
    for (let shown = 0; shown < outcomes.length; shown += shownAtOnce) {
      const some = outcomes.slice(shown, shown + shownAtOnce)
      const pieces = await Promise.all(some.map((outcome, offset) => this.json(start + shown + offset, outcome)))
      items.push(...pieces)
      bytes += pieces.reduce((sum, { length }) => sum + length, 0)
      if (bytes < partBytes && shown + shownAtOnce < outcomes.length) continue
      yield { items, nextCursor: null }
      items = []
      bytes = 0
    }
  }

  private async json(index: number, outcome: Settled): Promise<JsonPiece> {
    const shown = outcome instanceof Problem ? outcome : await withAnswer(this.parts, outcome.job).catch(toProblem)
    if (shown instanceof Problem) return outcomeJson({ index }, { status: shown.status, problem: shown })
    const status = isTerminal(shown.state) ? 200 : 202
    const replayed = !(outcome instanceof Problem) && isReplayed(outcome)
    return outcomeJson({ index }, { status, job: jobJson(shown, await this.parts.waiting.of(shown), replayed) })
  }

  /** Settles one chunk. Never rejects. A key that stood in an earlier item waits for that one: the later of two requests is refused. */
  private async settle(start: number, before: Promise<unknown>): Promise<Settled[]> {
    const leaders: Item[] = []
    const followers: Item[] = []
    await nextTurn()
    let turnEndsAt = performance.now() + sliceMs
    for (let index = start; index < Math.min(start + this.chunkSize, this.items.length); index += 1) {
      if (performance.now() >= turnEndsAt) {
        await nextTurn()
        turnEndsAt = performance.now() + sliceMs
      }
      const item = await this.prepare(index)
      const repeated = 'prepared' in item && this.seen.has(item.prepared.job.key)
      if ('prepared' in item) this.seen.add(item.prepared.job.key)
      ;(repeated ? followers : leaders).push(item)
    }
    const outcomes = new Map<number, Settled>()
    await this.submit(leaders, outcomes, start > 0)
    await before
    await this.submit(followers, outcomes, true)
    return [...outcomes].toSorted(([a], [b]) => a - b).map(([, outcome]) => outcome)
  }

  private async prepare(index: number): Promise<Item> {
    try {
      const { tenantId, defaults } = this.caller
      const body = this.items[index] as Buffer
      return { index, prepared: await this.parts.intake.item({ tenantId, defaults, body }) }
    } catch (error) {
      return { index, problem: toProblem(error) }
    }
  }

  private async submit(items: readonly Item[], outcomes: Map<number, Settled>, mayWait: boolean): Promise<void> {
    const full = items.length === 0 ? null : await this.room(items.length, mayWait)
    // Between the look for room and the submissions no other request gets a turn.
    const settled = items.map(async (item): Promise<void> => {
      outcomes.set(item.index, 'problem' in item ? item.problem : await this.submitOne(item.prepared, full))
    })
    await Promise.all(settled)
  }

  private async submitOne(prepared: PreparedJob, full: Problem | null): Promise<Settled> {
    if (full !== null || this.away !== null) return full ?? (this.away as Problem)
    try {
      const result = await this.parts.submissions.submit(prepared.job, this.caller.limits)
      logSubmission(this.parts, this.requestId, result)
      return result.kind === 'mismatch' ? await this.explain(prepared, result) : result
    } catch (error) {
      const problem = toProblem(error)
      if (problem.code === 'unavailable') this.away = problem
      return problem
    }
  }

  private explain(prepared: PreparedJob, { job }: SubmitResult): Promise<Problem> {
    this.explained += 1
    return reusedKey(this.parts, this.explained > maxExplained ? null : prepared, job, '/key')
  }

  /** Null once there is room for so many; else why not. */
  private async room(count: number, mayWait: boolean): Promise<Problem | null> {
    const { submissions } = this.parts
    const untilMs = awakeMs() + (mayWait ? waitForRoomMs : 0)
    while (submissions.depth + count > submissions.maxWaiting) {
      if (awakeMs() >= untilMs) return toProblem(new OverloadedError(`no room for ${count} submissions`))
      await sleep(roomCheckMs)
    }
    return null
  }
}
