import { type AddressInfo, type Socket, connect, createServer } from 'node:net'
import { track } from './servers.ts'

/** What the proxy does with bytes and connections from now on. */
type Mode = 'forward' | 'refuse' | 'hold' | 'stall_replies'

/** A TCP proxy on 127.0.0.1 through which a test cuts, stalls and refuses connections. */
export interface TcpProxy {
  readonly port: number
  /** Connections that are open now. */
  readonly connections: () => number
  /** Cuts every open connection with a reset. New ones are treated as before. */
  cutAll(): void
  /** New connections are cut at once; open ones go on. */
  refuse(): void
  /** Back to forwarding. Bytes that were swallowed meanwhile stay lost, so cut the connections concerned. */
  accept(): void
  /** Connections are accepted, and whatever either side says is swallowed. */
  hold(): void
  /** Requests arrive, replies are swallowed: a COMMIT that happened and was never confirmed. */
  stallReplies(): void
  /**
   * The next connection on which the client says `text` is cut with a reset as soon as the server has replied to it in full: it was
   * done, and the client does not know. For a Postgres whose statement contains `text` that is after its commit. Resolves then.
   */
  loseReplyTo(text: string): Promise<void>
  close(): Promise<void>
}

/**
 * A reset where the socket allows one. libuv refuses it while our own end of the stream is being shut down, and Node 20 then
 * takes the socket for closed all the same: its descriptor leaks, and the process spins for ever when it wants to exit.
 */
function cut(socket: Socket): void {
  if (socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}

/** The end of what Postgres says to a statement outside of a transaction block: it is committed. */
const readyForQuery = Buffer.from([0x5a, 0, 0, 0, 5, 0x49])

/** Starts a proxy to `targetPort` on 127.0.0.1. */
export async function startTcpProxy(targetPort: number): Promise<TcpProxy> {
  let mode: Mode = 'forward'
  const open = new Set<Socket>()
  const losses: { text: string; lost: () => void }[] = []

  const server = createServer({ noDelay: true }, (client) => {
    client.on('error', () => {})
    if (mode === 'refuse') return cut(client)
    const target = connect({ port: targetPort, host: '127.0.0.1', noDelay: true })
    target.on('error', () => cut(client))
    open.add(client)
    client.on('close', () => {
      open.delete(client)
      target.destroy()
    })
    target.on('close', () => client.destroy())
    client.on('end', () => target.end())
    target.on('end', () => client.end())
    let losing: (() => void) | undefined
    client.on('data', (bytes) => {
      const index = losses.findIndex(({ text }) => bytes.includes(text))
      if (index >= 0) losing = losses.splice(index, 1)[0]?.lost
      if (mode !== 'hold') target.write(bytes)
    })
    target.on('data', (bytes) => {
      if (losing !== undefined) {
        if (!bytes.subarray(-readyForQuery.length).equals(readyForQuery)) return
        cut(client)
        losing()
        return
      }
      if (mode !== 'hold' && mode !== 'stall_replies') client.write(bytes)
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => resolve())
  })

  const { port } = server.address() as AddressInfo
  const cutAll = (): void => {
    for (const client of open) cut(client)
  }
  const close = async (): Promise<void> => {
    cutAll()
    await new Promise<void>((resolve) => server.close(() => resolve()))
    untrack()
  }
  const untrack = track({ what: `proxy to port ${targetPort}`, pids: () => [], stop: close })
  const change = (next: Mode) => (): void => {
    mode = next
  }
  return {
    port,
    connections: () => open.size,
    cutAll,
    refuse: change('refuse'),
    accept: change('forward'),
    hold: change('hold'),
    stallReplies: change('stall_replies'),
    loseReplyTo: (text) => new Promise((lost) => losses.push({ text, lost })),
    close,
  }
}
