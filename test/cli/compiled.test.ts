import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { reapAll, spawnNode, type Ended } from '@askonce/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'

// Before Node 22.18 the program runs from a translation that it makes of its sources, see apps/cli/bin/compiled.js. Here it does so
// on every version of Node, in a copy of the program: what the user starts must be the sources as they are now, and always start.

let root = ''
let cache = ''
let driver = ''
beforeAll(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), 'askonce-compiled-')))
  cache = join(root, 'node_modules/.cache')
  mkdirSync(join(root, 'node_modules/@askonce'), { recursive: true })
  for (const entry of ['package.json', 'migrations', 'apps', 'packages']) {
    cpSync(entry, join(root, entry), { recursive: true, filter: (path) => !path.includes('node_modules') })
  }
  for (const name of readdirSync('node_modules')) {
    if (name !== '@askonce' && name !== '.cache')
      symlinkSync(resolve('node_modules', name), join(root, 'node_modules', name))
  }
  for (const group of ['apps', 'packages']) {
    for (const name of readdirSync(join(root, group))) {
      symlinkSync(join(root, group, name), join(root, 'node_modules/@askonce', name))
    }
  }
  driver = join(root, 'driver.js')
  writeFileSync(
    driver,
    `const { compiledEntry } = await import('./apps/cli/bin/compiled.js')
     const { main } = await import((await compiledEntry()).href)
     await main(['--version'])\n`,
  )
})
afterAll(async () => {
  await reapAll()
  rmSync(root, { recursive: true })
})

const run = async (script: string, ...args: string[]): Promise<[Ended['code'], string, string]> => {
  const child = spawnNode(script, { args })
  const { code } = await child.exited
  return [code, child.stdout.join('\n'), child.stderr.join('\n')]
}

const setVersion = (version: string): void =>
  writeFileSync(join(root, 'packages/config/src/version.ts'), `export const version: string = '${version}'\n`)

test('several that start at once on a fresh checkout all run, and one translation is left', async () => {
  setVersion('1.0.0')
  const runs = await Promise.all(Array.from({ length: 4 }, () => run(driver)))
  expect(runs).toEqual(Array.from({ length: 4 }, () => [0, '1.0.0', '']))
  expect(readdirSync(cache)).toEqual([expect.stringMatching(/^askonce-[0-9a-f]{16}$/)])
})

test('sources that have changed are what runs; translations of an hour ago are deleted, younger ones are not', async () => {
  const [first = ''] = readdirSync(cache)
  setVersion('2.0.0-changed')
  expect(await run(driver)).toEqual([0, '2.0.0-changed', ''])
  expect(readdirSync(cache)).toContain(first)
  const past = new Date(Date.now() - 3_700_000)
  utimesSync(join(cache, first), past, past)
  setVersion('3.0.0-changed-again')
  expect(await run(driver)).toEqual([0, '3.0.0-changed-again', ''])
  expect(readdirSync(cache)).toHaveLength(2)
  expect(readdirSync(cache)).not.toContain(first)
})

test('where nothing can be written the program runs all the same', async () => {
  rmSync(cache, { recursive: true })
  writeFileSync(cache, 'a file where the folder should be')
  setVersion('4.0.0')
  expect(await run(join(root, 'apps/cli/bin/askonce.js'), '--version')).toEqual([0, '4.0.0', ''])
})
