import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** What was compared with, as bench/package.json pins it. */
export function peerVersions(): Record<string, string> {
  const manifest = JSON.parse(readFileSync(join(import.meta.dirname, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  return manifest.dependencies
}
