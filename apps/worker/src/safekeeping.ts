import { Outage, type Log, type Metrics } from '@askonce/telemetry'
import type { AttemptEndRecord, EndedAttempt } from '@askonce/store'
import type { AnswerInHand } from './answer-in-hand.ts'
import type { BackPressure } from './back-pressure.ts'
import { Gate } from './gate.ts'
import { SpoolError } from './spool-record.ts'
import { codeOf, spoolTrouble, type AsideAs, type Spool } from './spool.ts'

/** Answers that are safe on disk are also kept in memory up to this many bytes; beyond, they are read again when their turn comes. */
const keptBytes = 32 * 1024 * 1024

/** The message is our own words. */
class SpoolUnavailableError extends Error {}

export interface SafekeepingOptions {
  spool: Spool
  log: Log
  metrics: Metrics
  backPressure: BackPressure
  /** Resolves once the database has told its identity. */
  databaseId: () => Promise<string>
}

/** Keeps answers that could not be stored: on disk, and while that fails too, in memory, saying so. */
export class Safekeeping {
  private readonly options: SafekeepingOptions
  private readonly outage: Outage
  private readonly disk = new Gate()
  /** Those that the database has not taken at the first attempt. */
  private readonly unstored = new Set<AnswerInHand>()
  /** Whose bytes are both on disk and in memory, waiting. */
  private readonly kept = new Set<AnswerInHand>()
  /** Paths of records that are known to be there. */
  private readonly files = new Set<string>()
  private lastTrouble: string | null = null

  constructor(options: SafekeepingOptions) {
    this.options = options
    this.outage = new Outage(options.log.child({ file: options.spool.directory }), 'spool')
    options.metrics.spoolWritable.set(1)
    this.report()
  }

  /** What is wrong with the directory; null: nothing that is known. */
  get trouble(): string | null {
    return this.lastTrouble === null
      ? null
      : `the spool directory ${this.options.spool.directory} cannot be written: ${this.lastTrouble}. ` +
          'Answers that Postgres does not take are kept in memory only'
  }

  /** Answers that are neither in the database nor on disk. */
  get unsafe(): AnswerInHand[] {
    return [...this.unstored].filter(({ file }) => file === null)
  }

  /** Whether the record is of an answer that this process is about to store. */
  has(path: string): boolean {
    for (const { file } of this.unstored) if (file === path) return true
    return false
  }

  /** Tells whether the directory can be written, and says so if that is news. */
  async check(): Promise<void> {
    try {
      await this.options.spool.probe()
      // A probe is small: it may fit where an answer does not.
      if (this.unsafe.length === 0) this.worked()
      this.disk.hint()
    } catch (error) {
      this.failed(error)
    }
  }

  /** The answer could not be stored at once: from now on it is being written to disk, again and again until one of both works. */
  keep(answer: AnswerInHand, cause: string): void {
    if (answer.keeping !== null) return
    this.unstored.add(answer)
    this.report()
    answer.keeping = this.untilOnDisk(answer, cause)
  }

  /** An answer's end with its bytes; null: its file is gone, or no record any more. Rejects when it could not be read this time. */
  async load(answer: AnswerInHand): Promise<AttemptEndRecord | null> {
    this.kept.delete(answer)
    if (answer.end.response !== null || answer.file === null) return answer.end
    try {
      const { end } = await this.options.spool.read(answer.file)
      answer.end = end
      return end
    } catch (error) {
      if (error instanceof SpoolError) await this.setDamagedAside(answer.file, error)
      else if (codeOf(error) !== 'ENOENT') throw error
      this.files.delete(answer.file)
      return null
    }
  }

  /** A statement with the answer's bytes has failed: they may leave the memory if the disk has them. */
  unload(answer: AnswerInHand): void {
    if (answer.file === null || answer.inUse || answer.end.response === null) return
    let bytes = answer.size
    for (const { size } of this.kept) bytes += size
    if (bytes <= keptBytes) this.kept.add(answer)
    // In place: whoever waits for this end holds the same object.
    else answer.end.response = null
  }

  /** The database has it: the file goes, after the commit and never before. */
  async finish(answer: AnswerInHand, ended: EndedAttempt): Promise<void> {
    await this.settle(answer)
    const { file } = answer
    if (file === null) return
    await this.remove(file)
    const outcome = ended.answerAttempt === ended.attempt ? 'answered' : 'surplus'
    this.options.log.event('spool.delivered', { ...answer.fields, file, outcome, state: ended.state })
  }

  /** The database will never have it: its file stays for a person. Returns the file's path, null when it could not be written. */
  async finishAside(answer: AnswerInHand, as: 'unstorable' | 'orphan', cause: string): Promise<string | null> {
    this.keep(answer, cause)
    // Not settled yet: while it cannot be written, it is one of the answers in memory that hold the worker back.
    await answer.keeping
    await this.settle(answer)
    const { file } = answer
    return file === null ? null : this.setAside(file, as, as)
  }

  /** It is nowhere any more, or somebody else has delivered it. */
  async settle(answer: AnswerInHand): Promise<void> {
    answer.stored?.abort()
    await answer.keeping
    this.kept.delete(answer)
    // Most are stored at the first attempt, and nobody has counted them.
    if (this.unstored.delete(answer)) this.report()
  }

  /** No record, whatever is done: out of the way, and told once. */
  async setDamagedAside(path: string, error: SpoolError): Promise<void> {
    const { log } = this.options
    const file = await this.setAside(path, 'damaged', error.fault)
    log.event('spool.damaged', { file, outcome: error.fault, reason: error.message })
  }

  /** What a look into the directory has found. */
  found(paths: readonly string[]): void {
    this.files.clear()
    for (const path of paths) this.files.add(path)
    this.report()
  }

  async remove(path: string): Promise<boolean> {
    try {
      await this.options.spool.remove(path)
      this.files.delete(path)
      this.report()
      return true
    } catch (error) {
      this.failed(error)
      return false
    }
  }

  /** Nothing more is tried: the process ends. */
  stop(): void {
    this.disk.shutForGood()
  }

  private async untilOnDisk(answer: AnswerInHand, cause: string): Promise<void> {
    const { spool, log, databaseId } = this.options
    const { signal } = (answer.stored = new AbortController())
    const database = await databaseId()
    while (await this.disk.enter(signal)) {
      if (signal.aborted) return this.disk.leave()
      try {
        answer.file = await spool.write({ database, tenant: answer.tenant, end: answer.end })
        this.files.add(answer.file)
        this.disk.worked()
        this.worked()
        log.event('spool.written', { ...answer.fields, file: answer.file, reason: cause })
        this.unload(answer)
        this.report()
        return
      } catch (error) {
        this.disk.failed()
        this.failed(error)
      }
    }
  }

  /** Where the file is afterwards: where it was, if it cannot be renamed. */
  private async setAside(path: string, as: AsideAs, why: string): Promise<string> {
    const { spool, metrics } = this.options
    metrics.spoolSetAside.inc({ why })
    try {
      const to = await spool.setAside(path, as)
      this.files.delete(path)
      this.report()
      return to
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') this.failed(error)
      return path
    }
  }

  private failed(error: unknown): void {
    this.lastTrouble = spoolTrouble(error)
    this.options.metrics.spoolWritable.set(0)
    this.outage.failed(new SpoolUnavailableError(this.lastTrouble))
    this.report()
  }

  private worked(): void {
    this.outage.worked()
    if (this.lastTrouble === null) return
    this.lastTrouble = null
    this.options.metrics.spoolWritable.set(1)
    this.report()
  }

  private report(): void {
    const { metrics, backPressure } = this.options
    let bytes = 0
    let inMemory = 0
    for (const { size, file, inUse } of this.unstored) {
      // One that is on disk and on its way into the database holds nobody back, however large it is.
      if (file === null || !inUse) bytes += size
      if (file === null) inMemory += 1
    }
    metrics.spoolFiles.set(this.files.size)
    metrics.unstoredAnswers.set({ where: 'memory' }, inMemory)
    metrics.unstoredAnswers.set({ where: 'disk' }, this.unstored.size - inMemory)
    // A first attempt to write it is under way as long as there is no trouble.
    backPressure.update({ answers: this.unstored.size, bytes, unsafe: this.lastTrouble === null ? 0 : inMemory })
  }
}
