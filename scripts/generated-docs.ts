import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { renderConfigDocs } from '@askonce/config'
import { renderReasonCodes, renderTransitions } from '@askonce/core'
import { renderEvents } from '@askonce/telemetry'
import { between } from './markdown.ts'

/** The pages that code writes, in whole or between markers, as they should be now. */
export function generatedDocs(root: string): { path: string; is: string; shouldBe: string }[] {
  const read = (path: string) => readFileSync(join(root, path), 'utf8')
  const page = (path: string, shouldBe: string) => ({ path, is: read(path), shouldBe })
  const table = (path: string, name: string, text: string) => page(path, withTable(path, read(path), name, text))
  return [
    page('docs/config.md', renderConfigDocs()),
    table('docs/events.md', 'events', renderEvents()),
    table('docs/lifecycle.md', 'transitions', renderTransitions()),
    page('docs/reasons.md', renderReasonCodes()),
  ]
}

/** The page with the table between its markers written anew. */
function withTable(path: string, text: string, name: string, table: string): string {
  const begin = `<!-- ${name}:begin -->`
  const end = `<!-- ${name}:end -->`
  if (between(text, begin, end) === undefined) throw new Error(`${path} lacks the markers ${begin} and ${end}`)
  return `${text.slice(0, text.indexOf(begin) + begin.length)}\n\n${table.trim()}\n\n${text.slice(text.indexOf(end))}`
}
