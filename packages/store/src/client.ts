import { timeLimit, within } from '@askonce/timing'
import pg from 'pg'
import { StoreTimeoutError } from './errors.ts'
import { connectionRefusal } from './refusals.ts'
import { checkSession, refuseAgain, type SessionRules } from './session-check.ts'

export interface ClientOptions extends pg.ClientConfig {
  /** How long a connection may take to be made. */
  connectLimitMs?: number
  /** How long a statement may go without its reply. */
  queryLimitMs?: number
  /** What the session has to be like, looked at before anybody's first statement; absent: anything goes. */
  rules?: SessionRules
}

/** How long a farewell may take before the socket is closed from our side. */
const farewellMs = 1_000

/**
 * Five things that node-postgres leaves to its users. A connection that breaks while nobody waits for it emits `error`, which ends
 * the process unless somebody listens; the statements reject anyway. A statement that got no reply in time, or a fatal one, leaves
 * a connection that the next statement would meet: it is ended, and a pool takes it out when it comes back. `end` waits for the
 * server's side, for ever if that hangs. Its own time-outs throw away the replies that arrived while the event loop stood still. And a session may
 * not have the settings that were asked for.
 */
class CarefulClient extends pg.Client {
  private readonly connectLimitMs: number | undefined
  private readonly queryLimitMs: number | undefined
  private readonly rules: SessionRules | undefined
  /** The error after which this connection was ended. */
  private endedBy: Error | null = null

  constructor(config: ClientOptions = {}) {
    super(config)
    this.connectLimitMs = config.connectLimitMs
    this.queryLimitMs = config.queryLimitMs
    this.rules = config.rules
    this.on('error', () => undefined)
  }

  override connect(...parameters: unknown[]): never {
    const opening = this.open()
    const [callback] = parameters as [((error: unknown, client?: this) => void)?]
    if (callback === undefined) return opening as never
    void this.tell(opening, callback)
    return undefined as never
  }

  private async tell(opening: Promise<this>, callback: (error: unknown, client?: this) => void): Promise<void> {
    const failure: unknown = await opening.then(
      () => null,
      (error: unknown) => error,
    )
    callback(failure, this)
  }

  private async open(): Promise<this> {
    if (this.rules !== undefined) refuseAgain(this.rules)
    const cancel =
      this.connectLimitMs === undefined
        ? () => undefined
        : timeLimit(this.connectLimitMs, () => {
            this.connection.stream.destroy(new StoreTimeoutError('no connection to Postgres in time'))
          })
    try {
      await super.connect().catch((error: unknown) => {
        // Where the login failed on our side, the server would wait for more.
        this.connection.stream.destroy()
        throw error
      })
      if (this.rules !== undefined) await this.check(this.rules)
      return this
    } catch (error) {
      throw connectionRefusal(error) ?? error
    } finally {
      cancel()
    }
  }

  private async check(rules: SessionRules): Promise<void> {
    try {
      await checkSession(this, rules)
    } catch (error) {
      // Nobody gets it.
      void this.end()
      throw error
    }
  }

  override query(...parameters: unknown[]): never {
    const result = (super.query as (...parameters: unknown[]) => unknown).apply(this, this.prepare(parameters))
    if (!(result instanceof Promise)) return result as never
    const { endedBy } = this
    result.catch((error: unknown) => {
      // The rollback that follows says no more than that there is no connection, and hides why.
      if (endedBy !== null && error instanceof Error) error.cause ??= endedBy
      if (!(error instanceof pg.DatabaseError)) return
      // A session that is read-only stays so after the role, the database or the address has been put right; a new one is not.
      if (!/^(?:FATAL|PANIC)$/.test(error.severity ?? '') && error.code !== '25006') return
      this.endedBy = error
      void this.end()
    })
    if (this.queryLimitMs === undefined) return result as never
    return within(result, this.queryLimitMs, () => {
      void this.end()
      return new StoreTimeoutError('no reply of Postgres in time: timeout')
    }) as never
  }

  protected prepare(parameters: unknown[]): unknown[] {
    return prepared(parameters)
  }

  override end(...parameters: [callback?: (error: Error) => void]): never {
    const timer = setTimeout(() => this.connection.stream.destroy(), farewellMs).unref()
    this.once('end', () => clearTimeout(timer))
    return (super.end as (...parameters: unknown[]) => unknown).apply(this, parameters) as never
  }
}

/** Behind a pooler in transaction mode the session of the next statement does not know what was prepared in this one's. */
class CarefulUnnamedClient extends CarefulClient {
  protected override prepare(parameters: unknown[]): unknown[] {
    return parameters
  }
}

/** With the types of node-postgres: its overloads cannot be overridden one by one. */
export const Client = CarefulClient as unknown as new (config?: ClientOptions) => pg.Client

/** A {@link Client} that prepares nothing under a name. */
export const UnnamedClient = CarefulUnnamedClient as unknown as typeof Client

/** What `hot` writes before a statement. */
const hotLabel = /^\s*\/\* hot: ([a-z_]+) \*\//

/** A statement that is labelled as hot is prepared under its name. */
function prepared(parameters: unknown[]): unknown[] {
  const [text, values] = parameters
  if (typeof text !== 'string' || !Array.isArray(values)) return parameters
  const name = hotLabel.exec(text)?.[1]
  return name === undefined ? parameters : [{ name, text, values }, ...parameters.slice(2)]
}
