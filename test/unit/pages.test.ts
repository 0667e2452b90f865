import { readdirSync, readFileSync } from 'node:fs'
import { transitions } from '@askonce/core'
import { createMetrics } from '@askonce/telemetry'
import { describe, expect, it } from 'vitest'

// What pages say by hand and code knows better. Links, commands and generated tables are the gate's (scripts/check-docs.ts).

const operations = readFileSync('docs/operations.md', 'utf8')

function blocks(language: string): string[] {
  const pattern = new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\``, 'gm')
  return [...operations.matchAll(pattern)].map(([, text = '']) => text)
}

describe('docs/operations.md', () => {
  it('lets a worker drain under systemd', () => {
    const unit = blocks('ini').join('')
    const setting = (name: string): number => Number(new RegExp(`\\b${name}=(\\d+)`).exec(unit)?.[1])
    expect(setting('TimeoutStopSec')).toBeGreaterThanOrEqual(setting('ASKONCE_DRAIN_SECONDS') + 20)
  })

  it('names only metrics that exist, as billing.md does', async () => {
    const { text } = await createMetrics().render()
    const known = new Set([...text.matchAll(/^# HELP (\S+)/gm)].map(([, name]) => name))
    const pages = operations + readFileSync('docs/billing.md', 'utf8')
    const named = [...pages.matchAll(/`(askonce_[a-z_]*[a-z])[`{]/g)].map(([, name]) => name)
    expect(named.length).toBeGreaterThan(20)
    expect(named.filter((name) => !known.has(name))).toEqual([])
  })
})

describe('docs/reliability.md', () => {
  const page = readFileSync('docs/reliability.md', 'utf8')
  const files = readdirSync('test/fault').filter((name) => name.endsWith('.test.ts'))

  it('has every fault test in its table', () => {
    const [, chapter = ''] = /^## The fault tests$([^]*?)^## /m.exec(page) ?? []
    const named = new Set([...chapter.matchAll(/`([a-z-]+)`/g)].map(([, name]) => `${name}.test.ts`))
    expect(files.length).toBeGreaterThan(20)
    expect(files.filter((name) => !named.has(name))).toEqual([])
  })

  it('is right that each names its promise, and what it does not cover', () => {
    const silent = files.filter((name) => {
      const text = readFileSync(`test/fault/${name}`, 'utf8')
      const head = text.slice(0, text.search(/^ *test(?:\(|\.each)/m))
      return !/DESIGN\.md §\d/.test(head) || !/Not covered: /.test(head)
    })
    expect(silent).toEqual([])
  })
})

describe('docs/lifecycle.md', () => {
  const page = readFileSync('docs/lifecycle.md', 'utf8')

  it('draws the arrows of the table, and no others', () => {
    const drawn = [...page.matchAll(/^ {2}(\S+) --> (\w+): (.*)$/gm)].flatMap(([, from = '', to = '', events = '']) =>
      events.split(', ').map((event) => `${event.replace(' (late)', '')}: ${from} to ${to}`),
    )
    const known = transitions.flatMap(({ event, from, to }) =>
      from.map((state) => `${event}: ${state ?? '[*]'} to ${to}`),
    )
    expect(drawn.toSorted()).toEqual(known.toSorted())
  })

  it('says of every event what it means', () => {
    for (const { event } of transitions) expect(page).toContain(`- **${event}**:`)
  })
})
