import {
  appendFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { checkArchitecture } from '../../scripts/check-architecture.ts'
import { checkDocs } from '../../scripts/check-docs.ts'
import { gates, runGate } from '../../scripts/gates.ts'
import { importsOf, sqlIn } from '../../scripts/source-text.ts'

// A gate is only worth its time if it can fail. Each one runs here on a copy of this repository in which the thing that
// it forbids has been planted.

// Whole tools run here, on cores that other test files share.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

const scratch = realpathSync(mkdtempSync(join(tmpdir(), 'askonce-gates-')))
afterAll(() => rmSync(scratch, { recursive: true }))

/** A copy that shares the installed packages, but whose own packages lead to the copy. */
function copyRepository(name: string): string {
  const root = join(scratch, name)
  const left = new Set(['.git', '.askonce', 'node_modules', 'coverage', 'dist'])
  cpSync('.', root, { recursive: true, filter: (from) => !left.has(basename(from)) })
  const modules = join(root, 'node_modules')
  mkdirSync(join(modules, '@askonce'), { recursive: true })
  for (const entry of readdirSync('node_modules')) {
    if (entry !== '@askonce') symlinkSync(resolve('node_modules', entry), join(modules, entry))
  }
  for (const folder of ['packages', 'apps']) {
    for (const entry of readdirSync(join(root, folder)))
      symlinkSync(join(root, folder, entry), join(modules, '@askonce', entry))
  }
  return root
}

function gateOutput(name: string, root: string): string {
  const gate = gates.find((candidate) => candidate.name === name)
  if (!gate) throw new Error(`no gate ${name}`)
  return runGate(gate, root).problems.join('\n')
}

const planted = {
  'packages/telemetry/src/planted-cycle.ts': `import { back } from '@askonce/providers'\nexport const there = () => back\n`,
  'packages/providers/src/planted-cycle.ts': `import { there } from '@askonce/telemetry'\nexport const back = () => there\n`,
  'packages/queue/src/planted-adapter.ts': `import * as store from '@askonce/store'\nexport const planted = store\n`,
  'packages/store/src/planted-inside.ts': `export * from '@askonce/core/src/key.ts'\nexport * from '../../core/src/key.ts'\n`,
  'packages/core/src/planted-import.ts': `import { z } from 'zod'\nimport { readFileSync } from 'node:fs'\nexport const planted = [z, readFileSync]\n`,
  'packages/core/src/planted-type.ts': `export const planted: number = 'not a number'\n`,
  'packages/core/src/planted-format.ts': `export const  planted = "double";\n`,
  'packages/core/src/planted-long.ts': `${'// one more line\n'.repeat(351)}export const planted = 1\n`,
  'apps/worker/src/planted-promise.ts': `export function planted(call: () => Promise<void>) {\n  call()\n  setTimeout(call, 1)\n}\nexport const three = async () => await 3\n`,
  'apps/api/src/planted-env.ts': `import { env } from 'node:process'\nexport const planted = [env, process.env.PLANTED]\n`,
  'apps/api/src/planted-any.ts': `export const planted = (text: string): number => JSON.parse(text)\n`,
  'apps/api/src/planted-kit.ts': `import * as kit from '@askonce/testkit'\nexport const planted = kit\n`,
  'apps/api/src/planted-sql.ts': 'export const planted = (id: string) => `select id from jobs where id = ${id}`\n',
  'apps/janitor/src/planted-query.ts': `import { Client } from 'pg'\nexport const planted = (client: Client) => client.query('x')\n`,
  'packages/client/src/planted-node.ts': `import { readFileSync } from 'node:fs'\nimport { fileKeyStore } from './node/index.ts'\nexport const planted = [readFileSync, fileKeyStore]\n`,
  'packages/client/src/node/planted-zod.ts': `import { z } from 'zod'\nexport const planted = z\n`,
  'packages/planted/package.json': `{ "name": "@askonce/planted", "exports": { ".": "./src/index.ts" } }\n`,
} as const

/** Plants everything in one copy: the tools run once each, not once per violation. */
function plantAll(root: string) {
  mkdirSync(join(root, 'packages/planted'))
  for (const [path, text] of Object.entries(planted)) writeFileSync(join(root, path), text)
  for (const name of ['telemetry', 'providers']) {
    appendFileSync(join(root, `packages/${name}/src/index.ts`), `\nexport * from './planted-cycle.ts'\n`)
  }
  appendFileSync(join(root, 'packages/core/src/index.ts'), `\nexport const plantedDead = 1\n`)
}

let dirty = ''
beforeAll(() => {
  dirty = copyRepository('dirty')
  plantAll(dirty)
})

it('format reports a file that oxfmt would change', () => {
  expect(gateOutput('format', dirty)).toContain('packages/core/src/planted-format.ts')
})

describe('lint', () => {
  let output = ''
  beforeAll(() => {
    output = gateOutput('lint', dirty)
  })

  it.each([
    ['an import cycle across workspaces', 'import(no-cycle)', 'packages/telemetry/src/planted-cycle.ts'],
    ['a floating promise', 'typescript(no-floating-promises)', 'apps/worker/src/planted-promise.ts'],
    ['a promise where none is expected', 'typescript(no-misused-promises)', 'apps/worker/src/planted-promise.ts'],
    ['an await of no promise', 'typescript(await-thenable)', 'apps/worker/src/planted-promise.ts'],
    ['process.env outside the configuration', 'node(no-process-env)', 'apps/api/src/planted-env.ts'],
    ['env imported from node:process', 'eslint(no-restricted-imports)', 'apps/api/src/planted-env.ts'],
    ['any that leaks', 'typescript(no-unsafe-return)', 'apps/api/src/planted-any.ts'],
    ['an adapter that imports an adapter', 'eslint(no-restricted-imports)', 'packages/queue/src/planted-adapter.ts'],
    ['a core that imports', 'eslint(no-restricted-imports)', 'packages/core/src/planted-import.ts'],
    ['the test kit in an app', 'eslint(no-restricted-imports)', 'apps/api/src/planted-kit.ts'],
    ['a database client in an app', 'eslint(no-restricted-imports)', 'apps/janitor/src/planted-query.ts'],
  ])('reports %s', (_name, rule, path) => {
    const reports = output.split(/\n(?= *[x×] )/u)
    const found = reports.some((report) => report.includes(rule) && report.includes(`[${path}:`))
    expect(found, output.slice(0, 4_000)).toBe(true)
  })
})

it('types reports what does not compile', () => {
  expect(gateOutput('types', dirty)).toMatch(/packages\/core\/src\/planted-type\.ts\(1,14\): error TS2322/)
})

it('dead-code reports an export and a file that nobody uses', () => {
  const output = gateOutput('dead-code', dirty)
  expect(output).toMatch(/plantedDead .*packages\/core\/src\/index\.ts/)
  expect(output).toContain('packages/core/src/planted-type.ts')
})

describe('architecture', () => {
  it.each([
    ['packages/queue/src/planted-adapter.ts:1', 'there is no arrow from queue to store'],
    ['packages/telemetry/src/planted-cycle.ts:1', 'there is no arrow from telemetry to providers'],
    ['packages/store/src/planted-inside.ts:1', 'reaches behind the index of a package'],
    ['packages/store/src/planted-inside.ts:2', 'reaches into another workspace'],
    ['packages/core/src/planted-import.ts:1', 'the core imports nothing'],
    ['packages/core/src/planted-import.ts:2', 'the core imports nothing'],
    ['apps/api/src/planted-kit.ts:1', 'there is no arrow from api to testkit'],
    ['apps/api/src/planted-sql.ts:1', 'holds SQL outside the store'],
    ['apps/janitor/src/planted-query.ts:1', 'only the packages that hold SQL talk to a database'],
    ['apps/janitor/src/planted-query.ts:2', 'holds SQL outside the store'],
    ['packages/core/src/planted-long.ts', 'has 352 lines, more than 350'],
    ['packages/client/src/planted-node.ts:1', 'the client imports nothing'],
    ['packages/client/src/planted-node.ts:2', 'browsers load this file'],
    ['packages/client/src/node/planted-zod.ts:1', 'the client imports nothing, and src/node only what Node has'],
    ['packages/planted/package.json', 'exports more than ./src/index.ts'],
    ['packages/planted/package.json', 'has no place in the arrows'],
  ])('reports %s: %s', (place, problem) => {
    const { problems } = checkArchitecture(dirty)
    expect(problems.filter((line) => line.startsWith(place) && line.includes(problem))).not.toEqual([])
  })

  it('finds every form of import, and none in comments', () => {
    const text = `import a from 'a'\nexport {\n  b,\n} from "b"\nimport 'c'\nawait import('d')\n/* import x from 'x' */ // import('y')
type E = import('e').E\nimport type { F } from 'f'\nconst url = 'http://import' // from 'z'\nexport * from 'g'\n`
    expect(importsOf(text).map((found) => found.text)).toEqual(['a', 'b', 'c', 'd', 'e', 'f', 'g'])
  })

  it('finds SQL in its forms, and leaves prose alone', () => {
    const sql = [
      "'select 1 from jobs'",
      '`\n  with due as (select 1) update x set y`',
      "'INSERT INTO jobs values'",
      '"update jobs set a = 1"',
    ]
    const code = [
      'sql`x`',
      'sql<Row>`x`',
      'sql.raw`x`',
      "pool.query('x')",
      'client.query<Row>(statement)',
      "'delete from jobs'",
    ]
    for (const text of [...sql, ...code]) expect(sqlIn(`const a = ${text}\n`), text).not.toEqual([])
    const prose = ["'updated the lane'", '// select id from jobs', 'request.query.state', "'cannot delete from'"]
    for (const text of prose) expect(sqlIn(`const a = ${text}\n`), text).toEqual([])
  })
})

it('schema reports a comparison that is missing or that fails', () => {
  const root = copyRepository('schema')
  const script = join(root, 'scripts/check-schema.ts')
  rmSync(script, { force: true })
  expect(gateOutput('schema', root)).toContain('scripts/check-schema.ts is missing')
  writeFileSync(script, `console.log('1 migrations')\nconsole.log('schema.sql differs')\nprocess.exitCode = 1\n`)
  expect(gateOutput('schema', root)).toContain('schema.sql differs')
  writeFileSync(script, '')
  expect(gateOutput('schema', root)).toContain('looked at 0 files')
})

describe('package', () => {
  it('reports what does not build for browsers', () => {
    expect(gateOutput('package', dirty)).toMatch(/src\/planted-node\.ts\(1,\d+\): error TS/)
  })

  it('reports every way in which a package can be wrong', () => {
    const root = copyRepository('package')
    const path = join(root, 'packages/client/package.json')
    const manifest = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
    const exports = { '.': { types: './dist/missing.d.ts', default: './dist/index.js' } }
    Object.assign(manifest, { version: '9.9.9', dependencies: { zod: '1' }, exports, files: ['dist', 'src'] })
    writeFileSync(path, JSON.stringify(manifest))
    rmSync(join(root, 'packages/client/LICENSE'))
    const output = gateOutput('package', root)
    for (const problem of [
      'has version 9.9.9',
      'has dependencies',
      'the package lacks LICENSE',
      'the package has src/index.ts',
      // publint, attw, the compiler and Node, each in its words.
      /publint run: .*dist\/missing\.d\.ts/s,
      /attw .*UntypedResolution|attw .*[Rr]esolution failed|attw .*No types/s,
      /tsc -p: .*consumer\.ts/s,
      /node --input-type=module: .*ERR_PACKAGE_PATH_NOT_EXPORTED/s,
    ]) {
      expect(output).toMatch(problem)
    }
  })
})

describe('docs', () => {
  const commands = new Map([
    ['start', []],
    ['lanes', ['list', 'resume']],
  ])

  it('reports every way in which a page can be wrong', () => {
    const root = copyRepository('docs')
    const transitions = '<!-- transitions:begin -->\n| event | from |\n<!-- transitions:end -->\n'
    writeFileSync(join(root, 'docs/lifecycle.md'), `# Lifecycle\n\n${transitions}`)
    writeFileSync(
      join(root, 'docs/errors.md'),
      '| code |\n|---|\n| `not_found` |\n| `not_found` |\n| `planted_code` |\n',
    )
    appendFileSync(join(root, 'docs/config.md'), 'An edit by hand.\n')
    writeFileSync(
      join(root, 'README.md'),
      [
        '# A heading, here',
        '[gone](docs/gone.md) [fine](docs/config.md#server) [no such heading](docs/config.md#planted) [here](#a-heading-here)',
        '`npm run planted` and `npm run check`, but prose about askonce planted is no command',
        '```sh',
        'npx askonce lanes planted && npx askonce lanes list',
        'askonce planted --flag',
        'askonce start # [not a link](planted.md)',
        '```',
      ].join('\n'),
    )
    const { problems } = checkDocs(root, commands)
    expect(problems).toEqual(
      expect.arrayContaining([
        'docs/config.md is not what the code says: npm run docs',
        'docs/lifecycle.md is not what the code says: npm run docs',
        'docs/errors.md lacks invalid_request',
        'docs/errors.md has planted_code, which no registry knows',
        'docs/errors.md has not_found twice',
      ]),
    )
    expect(problems.filter((problem) => problem.startsWith('README.md'))).toEqual([
      'README.md:2 links to docs/gone.md: no such file',
      'README.md:2 links to docs/config.md#planted: no such heading',
      'README.md:3 runs npm script planted: there is no such command',
      'README.md:5 runs askonce lanes planted: there is no such command',
      'README.md:6 runs askonce planted: there is no such command',
    ])
  })

  it('reports pages that are not there', () => {
    const root = copyRepository('no-docs')
    rmSync(join(root, 'docs'), { recursive: true })
    rmSync(join(root, 'README.md'), { force: true })
    const { problems } = checkDocs(root, commands)
    expect(problems).toEqual(expect.arrayContaining(['README.md is missing', 'docs/errors.md is missing']))
    expect(problems.join('\n')).toContain('docs/config.md')
  })
})

describe('a gate that has gone blind fails', () => {
  it.each([
    ['lint', '.oxlintrc.json', '"plugins"', '"ignorePatterns": ["apps/**"], "plugins"'],
    ['types', 'tsconfig.json', '"apps/*/src/**/*.ts",', ''],
    ['format', '.oxfmtrc.json', '"ignorePatterns": [', '"ignorePatterns": ["packages/**",'],
    ['dead-code', 'knip.json', '"ignoreIssues"', '"ignoreWorkspaces": ["packages/*"], "ignoreIssues"'],
  ])(
    '%s: a folder is left out of %s',
    (name, file, from, to) => {
      const root = copyRepository(`blind-${name}`)
      const text = readFileSync(join(root, file), 'utf8')
      expect(text).toContain(from)
      writeFileSync(join(root, file), text.replace(from, to))
      expect(gateOutput(name, root)).toMatch(/looked at \d+ files: there are \d+/)
    },
    120_000,
  )

  it.each(gates.map((gate) => gate.name))('%s: nothing is there', (name) => {
    const root = join(scratch, `empty-${name}`)
    mkdirSync(root)
    expect(gateOutput(name, root)).not.toBe('')
  })
})
