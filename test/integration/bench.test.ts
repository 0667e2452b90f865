import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { leakCheck, reapAll, spawnNode, type Child } from '@askonce/testkit'
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest'
import { caseNames } from '../../bench/case-names.ts'
import { casesNamed } from '../../bench/cases/index.ts'

const bench = new URL('../../bench/main.ts', import.meta.url).pathname

let folder = ''

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'askonce-bench-test-'))
  // The server that runs as somebody else must be able to pass it.
  chmodSync(folder, 0o711)
})
afterEach(async () => {
  await reapAll()
  rmSync(folder, { recursive: true, force: true })
})
afterAll(leakCheck)

function start(env: Record<string, string> = {}): Child {
  return spawnNode(bench, { args: ['--smoke', '--case', 'recover'], env: { TMPDIR: folder, ...env } })
}

/** What a run has left in its temporary folder, the cache of the TypeScript loader apart. */
function leftovers(): string[] {
  return readdirSync(folder).filter((name) => name.startsWith('askonce-'))
}

test('every case can be asked for by its name, has a figure for each of its targets, and is on the page', () => {
  const cases = casesNamed(caseNames)
  expect(cases.map(({ name }) => name).toSorted()).toEqual(caseNames.toSorted())
  for (const { figures, targets } of cases) {
    const known = figures.map(({ name }) => name)
    expect(known).toEqual(expect.arrayContaining(targets.map(({ figure }) => figure)))
  }
  const page = readFileSync(new URL('../../docs/performance.md', import.meta.url), 'utf8')
  const table = page.split('## The cases')[1]?.split('\n## ')[0] ?? ''
  const rows = [...table.matchAll(/^\| `([a-z-]+)` \| [^|]+ \| [^|]+ \|$/gm)].map(([, name]) => name)
  expect(rows).toEqual(expect.arrayContaining([...caseNames]))
})

test('without Redis it says so before it starts anything', async () => {
  const run = start({ REDIS_SERVER: join(folder, 'no-redis') })
  expect(await run.exited).toEqual({ code: 1, signal: null })
  expect(run.stderr.join('\n')).toMatch(/^bench: REDIS_SERVER is set, but .*no-redis is not a program/m)
  expect(leftovers()).toEqual([])
})

test('a server that finds its port in use is quoted, the other one is stopped, and nothing is left', async () => {
  const redis = join(folder, 'redis-server')
  const script =
    '#!/bin/sh\n[ "$1" = --version ] && echo "Redis server v=7.0.15" && exit 0\necho "bind: Address already in use"\nexit 1\n'
  writeFileSync(redis, script, { mode: 0o755 })
  const run = start({ REDIS_SERVER: redis })
  expect(await run.exited).toEqual({ code: 1, signal: null })
  expect(run.stderr.join('\n')).toMatch(
    /servers of the benchmark did not start: redis-server ended[^]*Address already in use/,
  )
  expect(leftovers()).toEqual([])
})

test.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('%s stops its servers and leaves nothing', async (signal, code) => {
  const run = start()
  // Its servers run; it installs its peers, or it measures.
  await run.waitForLine(/^installing|^recover:/, 60_000)
  expect(leftovers().length).toBeGreaterThan(0)
  run.signal(signal)
  expect(await run.exited).toEqual({ code, signal: null })
  expect(run.stdout).toContainEqual(`${signal}: stopping the servers`)
  expect(leftovers()).toEqual([])
})
