import { readFileSync } from 'node:fs'
import { transitions } from '@askonce/core'
import { createMetrics } from '@askonce/telemetry'
import { describe, expect, it } from 'vitest'
import { parseAllDocuments } from 'yaml'

// What pages say by hand and code knows better. Links, commands and generated tables are the gate's (scripts/check-docs.ts).

const operations = readFileSync('docs/operations.md', 'utf8')

function blocks(language: string): string[] {
  const pattern = new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\``, 'gm')
  return [...operations.matchAll(pattern)].map(([, text = '']) => text)
}

interface Pod {
  terminationGracePeriodSeconds?: number
  containers: { name: string; args: string[]; env?: { name: string; value: string }[] }[]
}

interface Manifest {
  spec: { template?: { spec: Pod }; jobTemplate?: { spec: { template: { spec: Pod } } } }
}

function podsOf(text: string): Pod[] {
  return parseAllDocuments(text).map((document) => {
    if (document.errors[0] !== undefined) throw document.errors[0]
    const { spec } = document.toJS() as Manifest
    const pod = spec.template?.spec ?? spec.jobTemplate?.spec.template.spec
    if (pod === undefined) throw new Error('a manifest without a pod')
    return pod
  })
}

describe('docs/operations.md', () => {
  const pods = blocks('yaml').flatMap(podsOf)

  it('runs each role in Kubernetes, and the sweep from a CronJob', () => {
    const roles = pods.map(({ containers }) => containers[0]?.args[0])
    expect(roles).toEqual(['migrate', 'api', 'worker', 'janitor', 'sweep'])
  })

  it('lets a worker drain, in Kubernetes and under systemd', () => {
    const worker = pods.find(({ containers }) => containers[0]?.name === 'worker')
    const drain = worker?.containers[0]?.env?.find(({ name }) => name === 'ASKONCE_DRAIN_SECONDS')?.value
    expect(worker?.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(Number(drain) + 20)

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
