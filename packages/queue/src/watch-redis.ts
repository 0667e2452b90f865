import { Redis, type Cluster } from 'ioredis'
import { inOwnWords, isRefusal, QueueUnavailableError } from './errors.ts'

/** A client with all the connections that BullMQ makes from it. */
export interface WatchedRedis {
  readonly redis: Redis | Cluster
  /** Why there is no connection, or was none until a moment ago; null: there is one. */
  failure(): Error | null
  /** Ends every connection, also those that are being made. */
  disconnect(): void
}

/**
 * Connects again where another connection may help: after a failover we may be left on a replica, and a database that was refused is
 * never done without. The command is rejected: sent again for ever, it would hide what is wrong.
 */
export function reconnectOnError(error: Error): boolean {
  return error.message.startsWith('READONLY') || isRefusedSelect(error)
}

function isRefusedSelect(error: Error): boolean {
  return isRefusal(error) && error.command?.name === 'select'
}

const hungUp = {
  message: 'the server ends every connection before it answers',
  todo: 'Does the port speak TLS? Then use rediss:// instead of redis://; if it asks for a certificate, set ASKONCE_REDIS_CERT_FILE and ASKONCE_REDIS_KEY_FILE. Or it is another program: correct host and port of REDIS_URL.',
}

function saysWhy(error: Error): boolean {
  return error instanceof QueueUnavailableError || isRefusal(error) || 'code' in error
}

/**
 * Tells what breaks in our own words, and keeps commands from a connection whose SELECT was refused: the client would go on with
 * database 0, which is somebody else's.
 */
export function watchRedis(first: Redis | Cluster, onError: (error: Error) => void): WatchedRedis {
  const clients = new Map<Redis | Cluster, Error | null>()

  let ended = false

  const watch = <Client extends Redis | Cluster>(client: Client): Client => {
    clients.set(client, null)
    let refused = false
    let heard = false
    client.on('connect', () => (refused = heard = false))
    client.on('ready', () => clients.set(client, null))
    client.on('close', () => {
      if (!heard && !ended)
        clients.set(client, clients.get(client) ?? new QueueUnavailableError(hungUp.message, hungUp))
    })
    client.on('error', (error: Error) => {
      heard = true
      refused ||= isRefusedSelect(error)
      const words = inOwnWords(error)
      // That it has given up a command says nothing beside why there is no connection.
      const failure = saysWhy(words) ? words : (clients.get(client) ?? words)
      clients.set(client, failure)
      onError(failure)
    })
    if (client instanceof Redis) {
      // The socket has been ended by `reconnectOnError`, so nothing is sent; without this BullMQ would still be told that it is ready.
      const { connector } = client as unknown as { connector: { check: (info: unknown) => boolean } }
      const check = connector.check.bind(connector)
      connector.check = (info) => {
        heard = true
        return !refused && check(info)
      }
    }
    const duplicate = client.duplicate.bind(client) as (...given: unknown[]) => Client
    return Object.assign(client, { duplicate: (...given: unknown[]) => watch(duplicate(...given)) })
  }
  watch(first)

  return {
    redis: first,
    failure: () => [...clients.values()].find((failure) => failure !== null) ?? null,
    disconnect: () => {
      ended = true
      for (const client of clients.keys()) client.disconnect()
    },
  }
}
