#!/usr/bin/env node
// The process behind `askonce` is the server itself: no child, so exit code and signals are the program's own.
// Node ≥ 22.18 strips types by itself; older releases get tsx registered in this process.
if (!process.features.typescript) {
  const { register } = await import('tsx/esm/api')
  register()
}
const { main } = await import('../src/index.ts')
await main(process.argv.slice(2))
