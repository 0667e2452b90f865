import { Agent, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'

/**
 * A bare proxy, the floor of what stands between a caller and a provider: it hands on bytes and looks at nothing. Its argument is the
 * provider's address.
 */
const provider = new URL(process.argv[2] ?? '')
const agent = new Agent({ keepAlive: true })
const server = createServer((incoming, answer) => {
  const { method, url: path, headers } = incoming
  const call = request(provider, { method, path, headers, agent }, (response) => {
    answer.writeHead(response.statusCode ?? 502, response.headers)
    response.pipe(answer)
  })
  call.once('error', () => answer.destroy())
  incoming.pipe(call)
})
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo
  process.stdout.write(`${JSON.stringify({ address: `http://127.0.0.1:${port}` })}\n`)
})
