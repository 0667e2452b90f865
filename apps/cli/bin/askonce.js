#!/usr/bin/env node
// The process behind `askonce` is the server itself: no child, so exit code and signals are the program's own.
import process from 'node:process'

/** Node ≥ 22.18 strips types by itself. */
async function entry() {
  const sources = new URL('../src/index.ts', import.meta.url)
  if (process.features.typescript) return sources
  try {
    const { compiledEntry } = await import('./compiled.js')
    const compiled = await compiledEntry()
    process.setSourceMapsEnabled(true)
    return compiled
  } catch {
    // A folder that cannot be written: slower, and the same program.
    const { register } = await import('tsx/esm/api')
    register()
    return sources
  }
}

const { main } = await import((await entry()).href)
await main(process.argv.slice(2))
