import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { renderConfigDocs } from '@askonce/config'
import { renderReasonCodes, renderTransitions } from '@askonce/core'
import { between } from './markdown.ts'

const BEGIN = '<!-- transitions:begin -->'
const END = '<!-- transitions:end -->'

/** The pages that code writes, in whole or between markers, as they should be now. */
export function generatedDocs(root: string): { path: string; is: string; shouldBe: string }[] {
  const read = (path: string) => readFileSync(join(root, path), 'utf8')
  const lifecycle = read('docs/lifecycle.md')
  const table = between(lifecycle, BEGIN, END)
  if (table === undefined) throw new Error(`docs/lifecycle.md lacks the markers ${BEGIN} and ${END}`)
  const head = lifecycle.slice(0, lifecycle.indexOf(BEGIN) + BEGIN.length)
  const tail = lifecycle.slice(lifecycle.indexOf(END))
  return [
    { path: 'docs/config.md', is: read('docs/config.md'), shouldBe: renderConfigDocs() },
    { path: 'docs/lifecycle.md', is: lifecycle, shouldBe: `${head}\n\n${renderTransitions().trim()}\n\n${tail}` },
    { path: 'docs/reasons.md', is: read('docs/reasons.md'), shouldBe: renderReasonCodes() },
  ]
}
