import { connect as connectPlain, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Broken, Exchange, Wire } from './exchange.ts'

/** Asking what a port speaks takes no longer. */
const patienceMs = 2_000

/**
 * The same wire, which also finds out when a base URL says `http://` of a port that speaks TLS: such a server hangs up on what it
 * cannot read, which would look like a call whose fate is unknown. It is asked only where the connection ended without an answer
 * and this process has never had one from there. A port that speaks both has perhaps read the call, so it is not meant.
 */
export function checkForTls(wire: Wire, origin: string): Wire {
  const { protocol, hostname, port } = new URL(origin)
  if (protocol !== 'http:') return wire
  const host = hostname.replace(/^\[(.*)\]$/, '$1')
  let hasAnswered = false
  return {
    send: async (call) => {
      const exchange: Exchange = await wire.send(call)
      if (exchange.kind === 'response' || exchange.status !== null) hasAnswered = true
      const isMeant = !hasAnswered && exchange.kind === 'broken' && exchange.sent && hungUp.has(exchange.reason)
      if (!isMeant || !(await speaksOnlyTls(host, Number(port || 80)))) return exchange
      const detail = 'the port speaks TLS, but the base URL of this lane begins with http://'
      return { ...exchange, sent: false, detail }
    },
    close: () => wire.close(),
  }
}

const hungUp: ReadonlySet<Broken['reason']> = new Set(['lost', 'garbled'])

async function speaksOnlyTls(host: string, port: number): Promise<boolean> {
  const [tls, plain] = await Promise.all([answersTls(host, port), answersPlain(host, port)])
  return tls && !plain
}

/** An alert is an answer in TLS too: some servers want a name or a certificate of the client. */
function answersTls(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    // Nothing is sent over it, so it does not matter whose certificate it is.
    const socket = connectTls({ host, port, rejectUnauthorized: false }, () => resolve(true))
    giveUp(socket, (error) => resolve(error?.code?.includes('ALERT') === true))
  })
}

function answersPlain(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectPlain({ host, port }, () => socket.write(`HEAD / HTTP/1.1\r\nhost: ${host}\r\n\r\n`))
    socket.once('data', (bytes: Buffer) => resolve(bytes.toString('latin1').startsWith('HTTP/')))
    giveUp(socket, () => resolve(false))
  })
}

/** Whatever ends it, or two seconds without that. */
function giveUp(socket: Socket, done: (error: NodeJS.ErrnoException | null) => void): void {
  socket.setTimeout(patienceMs, () => socket.destroy())
  socket.once('secureConnect', () => socket.destroy())
  socket.once('data', () => socket.destroy())
  socket.once('error', (error) => done(error))
  socket.once('close', () => done(null))
}
