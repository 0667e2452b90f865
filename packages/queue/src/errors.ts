/** The queue cannot be worked with; the message is our own words. */
export class QueueUnavailableError extends Error {
  /** What an operator does about it; null: the code of the cause says it. */
  readonly todo: string | null

  constructor(message: string, { cause, todo = null }: { cause?: unknown; todo?: string | null } = {}) {
    super(message, cause === undefined ? {} : { cause })
    this.todo = todo
  }
}

/** Nothing was heard in time, and nobody knows why. */
export class QueueTimeoutError extends QueueUnavailableError {
  constructor(what: string, timeoutMs: number) {
    super(`${what} took longer than ${timeoutMs} ms`, {
      todo: 'Is it running, and are host and port right? A server that hangs also does this.',
    })
  }
}

interface ReplyError extends Error {
  command?: { name: string; args: readonly unknown[] }
}

/** Redis answered, and refused. Its libraries know no class that could be imported. */
export function isRefusal(error: Error): error is ReplyError {
  return error.constructor.name === 'ReplyError'
}

/**
 * What an error of the Redis client comes from, in words that an operator can act on. The texts of Redis are not passed on: they may
 * name users and keys. A refusal whose first word says it all (`WRONGPASS`, `READONLY`) stays as it is.
 */
export function inOwnWords(error: Error): Error {
  if (isRefusal(error)) return refusalInOwnWords(error)
  const { message } = error
  if (error.constructor.name === 'ParserError') {
    const tls = String.raw`got "\u0015"`
    return message.includes(tls)
      ? new QueueUnavailableError('the port answers with TLS', {
          todo: 'Use rediss:// instead of redis:// in REDIS_URL.',
        })
      : new QueueUnavailableError('what answers there is not Redis', { todo: 'Correct host and port of REDIS_URL.' })
  }
  const { lastNodeError } = error as { lastNodeError?: unknown }
  if (lastNodeError instanceof Error) {
    const cause = inOwnWords(lastNodeError)
    return cause instanceof QueueUnavailableError
      ? cause
      : new QueueUnavailableError('no node of the cluster could be asked', { cause })
  }
  if (message.startsWith('All sentinels are unreachable')) {
    const code = /Last error: (?:[a-z]+ )?([A-Z][A-Z_]+)\b/.exec(message)?.[1]
    if (code === undefined && !message.includes('Last error'))
      return new QueueUnavailableError('the sentinels know no primary of the name in REDIS_URL')
    const cause = code === undefined ? undefined : Object.assign(new Error(), { code })
    return new QueueUnavailableError('no sentinel could be asked', { cause })
  }
  return error
}

function refusalInOwnWords(error: ReplyError): Error {
  const { message, command } = error
  const selected = command?.name === 'select' ? Number(command.args[0]) : null
  if (message.startsWith('NOPERM')) {
    const refused = /the '([\w|-]{1,40})' command/.exec(message)?.[1]
    if (refused === undefined) {
      const todo = 'Run what this prints: askonce grants --role <user of REDIS_URL> --redis.'
      return new QueueUnavailableError('Redis does not let its user work on the keys of the queue', {
        cause: error,
        todo,
      })
    }
    const why = selected === null ? '' : `, which the database number ${selected} needs: nothing is sent to another one`
    return new QueueUnavailableError(
      `Redis does not let its user run ${refused.toUpperCase().replace('|', ' ')}${why}`,
      {
        cause: error,
        todo: `Run: ACL SETUSER <user of REDIS_URL> +${refused.toLowerCase()} (all that the queue needs: askonce grants --role <user> --redis).`,
      },
    )
  }
  if (message.startsWith('MOVED') || /not allowed in cluster mode/.test(message)) {
    return new QueueUnavailableError('REDIS_URL names a node of a cluster as a single server', {
      todo: 'Use the form for a cluster: redis+cluster://user:password@host:port,host:port',
    })
  }
  if (/cluster support disabled/.test(message)) {
    return new QueueUnavailableError('REDIS_URL names a cluster, and what answers is a single server', {
      todo: 'Use the form for one server: redis://user:password@host:port/0',
    })
  }
  if (message.startsWith('ERR max number of clients')) {
    return new QueueUnavailableError('Redis has no connection left', {
      todo: 'Raise maxclients of Redis, or run fewer processes.',
    })
  }
  if (selected !== null && message.startsWith('ERR')) {
    return new QueueUnavailableError(`Redis has no database number ${selected}: nothing is sent to another one`, {
      todo: 'Use a number that it has (`databases` in its configuration), or the database 0 and an ASKONCE_REDIS_PREFIX.',
    })
  }
  if (/unknown command|unknown subcommand/i.test(message) && command !== undefined) {
    return new QueueUnavailableError(
      `Redis cannot be asked for ${command.name.toUpperCase()}: the command is renamed or switched off there`,
      { todo: 'Let the server have this command (no rename-command); an ACL can keep others from it.' },
    )
  }
  return error
}
