import pg from 'pg'

/** How long a farewell may take before the socket is closed from our side. */
const farewellMs = 1_000

/**
 * Three things that node-postgres leaves to its users. A connection that breaks while nobody waits for it emits `error`, which ends
 * the process unless somebody listens; the statements reject anyway. A statement that got no reply in time, or a fatal one, leaves
 * a connection that the next statement would meet: it is ended, and a pool takes it out when it comes back. And `end` waits for the
 * server's side, for ever if that hangs.
 */
class CarefulClient extends pg.Client {
  constructor(config?: string | pg.ClientConfig) {
    super(config)
    this.on('error', () => undefined)
  }

  override query(...parameters: unknown[]): never {
    const result = (super.query as (...parameters: unknown[]) => unknown).apply(this, this.prepare(parameters))
    if (result instanceof Promise) {
      result.catch((error: unknown) => {
        if (endsConnection(error)) void this.end()
      })
    }
    return result as never
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
export const Client: typeof pg.Client = CarefulClient

/** A {@link Client} that prepares nothing under a name. */
export const UnnamedClient: typeof pg.Client = CarefulUnnamedClient

/** What `hot` writes before a statement. */
const hotLabel = /^\s*\/\* hot: ([a-z_]+) \*\//

/** A statement that is labelled as hot is prepared under its name. */
function prepared(parameters: unknown[]): unknown[] {
  const [text, values] = parameters
  if (typeof text !== 'string' || !Array.isArray(values)) return parameters
  const name = hotLabel.exec(text)?.[1]
  return name === undefined ? parameters : [{ name, text, values }, ...parameters.slice(2)]
}

function endsConnection(error: unknown): boolean {
  if (error instanceof pg.DatabaseError) return error.severity === 'FATAL' || error.severity === 'PANIC'
  return error instanceof Error && error.message === 'Query read timeout'
}
