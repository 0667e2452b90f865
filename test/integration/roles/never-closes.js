import { Server } from 'node:net'

// Loaded before a program (`node --import`), this lets a server be closed without an end, as a library that waits for ever does.
Server.prototype.close = function close() {
  return this
}
