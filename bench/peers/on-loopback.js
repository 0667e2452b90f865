// Preloaded into a server that has no option for its address: it listens on 127.0.0.1 only, and says where in a line of JSON.
import { Server } from 'node:net'
import process from 'node:process'

const { listen } = Server.prototype
Server.prototype.listen = function listenOnLoopback(port, ...rest) {
  this.once('listening', () => {
    process.stdout.write(`\n${JSON.stringify({ address: `http://127.0.0.1:${this.address().port}` })}\n`)
  })
  const callbacks = rest.filter((one) => typeof one === 'function')
  return Reflect.apply(listen, this, [{ port, host: '127.0.0.1' }, ...callbacks])
}
