import { setTimeout as sleep } from 'node:timers/promises'
import type { Child, Ended } from '@askonce/testkit'

/** As an orchestrator would: a moment, then again. */
const restartDelayMs = 250

/** A process that is started again whenever it ends, until it is told to stop. */
export class Supervised {
  readonly name: string
  /** Ends that nobody in the harness asked for, with the last lines of output: a defect, or a refusal to start. */
  readonly ownEnds: string[] = []
  private readonly spawn: () => Child
  private child: Child
  private killed = false
  private stopping = false
  private readonly loop: Promise<void>

  constructor(name: string, spawn: () => Child) {
    this.name = name
    this.spawn = spawn
    this.child = spawn()
    this.loop = this.watch()
  }

  get pid(): number {
    return this.child.pid
  }

  /** Sends a signal that is meant to end the process; it comes back. */
  end(signal: 'SIGKILL' | 'SIGTERM'): void {
    this.killed = true
    this.child.signal(signal)
  }

  freeze(): void {
    this.child.signal('SIGSTOP')
  }

  thaw(): void {
    this.child.signal('SIGCONT')
  }

  /** Ends it for good: SIGTERM, and SIGKILL for what is still there after `patienceMs`. */
  async stop(patienceMs: number): Promise<Ended> {
    this.stopping = true
    const { child } = this
    child.signal('SIGTERM')
    const ended = await Promise.race([child.exited, sleep(patienceMs, null, { ref: false })])
    const end = ended ?? (await child.kill())
    await this.loop
    return end
  }

  private async watch(): Promise<void> {
    for (;;) {
      const { code, signal } = await this.child.exited
      if (this.stopping) return
      if (!this.killed) {
        const tail = [...this.child.stdout, ...this.child.stderr].slice(-5).join('\n')
        this.ownEnds.push(`${this.name} ended by itself (code ${code}, signal ${signal}):\n${tail}`)
      }
      this.killed = false
      await sleep(restartDelayMs)
      // stop() may have come meanwhile.
      if (this.wantsStop()) return
      this.child = this.spawn()
    }
  }

  private wantsStop(): boolean {
    return this.stopping
  }
}
