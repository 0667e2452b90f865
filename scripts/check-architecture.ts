import { readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { importsOf, sqlIn } from './source-text.ts'
import { filesBelow, type GateResult } from './tree.ts'

/** Adapters know the core and nothing of each other. */
const ADAPTERS = ['store', 'queue', 'providers', 'telemetry', 'config', 'embedded']
/** Leaves that anybody may use: each knows nothing of the rest. */
const LEAVES = ['address', 'threads', 'timing']
const PARTS = [...ADAPTERS, ...LEAVES, 'core', 'intake']

/** What each workspace may import. A workspace that is not listed is a problem: give it its place first. */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  core: [],
  // Published: producers install nothing else with it.
  client: [],
  // What a request must be to become a job: rules over the configuration, for those that take requests in. Of the store only
  // types: rules do no I/O.
  intake: ['core', 'config', 'store', 'threads'],
  // What an address says, and what a driver is given of it.
  address: [],
  // Knows nothing of what its threads do.
  threads: [],
  // Knows nothing of who waits for what.
  timing: [],
  ...Object.fromEntries(ADAPTERS.map((name) => [name, ['core', ...LEAVES]])),
  testkit: PARTS,
  api: PARTS,
  worker: PARTS,
  janitor: PARTS,
  cli: [...PARTS, 'api', 'worker', 'janitor'],
}

/** Folders beside the workspaces: they may use every package, the test kit too. */
const OUTSIDE = /^(?:test|bench|scripts|examples)\//

/** The core decides and computes; SHA-256 is the one thing that it takes from the platform. */
const CORE_MAY_IMPORT = new Set(['node:crypto'])

/**
 * The client is published, and browsers load it: it imports nothing but its own files. What is for Node is an entry of its own.
 */
const CLIENT = 'packages/client/src/'
const CLIENT_FOR_NODE = `${CLIENT}node/`
/** The only package whose exports name built files, and the only one with two entries. */
const PUBLISHED = 'packages/client/package.json'
const PUBLISHED_ENTRY = '@askonce/client/node'

/** The folders that speak SQL. In packages/queue it is the glue of BullMQ's PostgreSQL backend. */
const SQL_FOLDERS = ['packages/store/', 'packages/embedded/', 'packages/testkit/', 'packages/queue/']
const SQL_PACKAGES = new Set(['pg', 'kysely'])

const MAX_LINES = 350

type File = { path: string; workspace: string; name: string; text: string }

function readSource(root: string, path: string): File {
  const [, workspace = '', name = ''] = /^((?:apps|packages)\/([^/]+))\//.exec(path) ?? []
  return { path, workspace, name, text: readFileSync(join(root, path), 'utf8') }
}

/** What is wrong with one import; undefined if nothing. */
function importProblem(file: File, target: string): string | undefined {
  if (target.startsWith('.')) {
    const to = normalize(join(dirname(file.path), target))
    const [, workspace] = /^((?:apps|packages)\/[^/]+)\//.exec(to) ?? []
    // A unit test may look at one part of a package, which its index rightly does not show.
    if (file.path.startsWith('test/unit/')) return undefined
    if (file.path.startsWith(CLIENT) && !file.path.startsWith(CLIENT_FOR_NODE) && to.startsWith(CLIENT_FOR_NODE)) {
      return 'browsers load this file: only src/node may use what is for Node'
    }
    const leaves = file.workspace === '' ? workspace !== undefined : !to.startsWith(`${file.workspace}/`)
    return leaves ? 'reaches into another workspace: import it by its name' : undefined
  }
  const [, name, inside] = /^(?:@askonce\/([^/]+)|askonce(?=\/|$))(\/.*)?$/.exec(target) ?? []
  if (inside !== undefined && target !== PUBLISHED_ENTRY)
    return 'reaches behind the index of a package: src/index.ts is its only export'
  if (file.name === 'core' && !CORE_MAY_IMPORT.has(target)) return 'the core imports nothing'
  if (file.path.startsWith(CLIENT) && !(file.path.startsWith(CLIENT_FOR_NODE) && target.startsWith('node:'))) {
    return 'the client imports nothing, and src/node only what Node has'
  }
  if (SQL_PACKAGES.has(target) && file.workspace !== '' && !mayHoldSql(file.path)) {
    return 'only the packages that hold SQL talk to a database'
  }
  if (name === undefined || file.workspace === '') return undefined
  return ARROWS[file.name]?.includes(name) ? undefined : `there is no arrow from ${file.name} to ${name}`
}

function mayHoldSql(path: string): boolean {
  return SQL_FOLDERS.some((folder) => path.startsWith(folder))
}

function problemsOf(file: File): string[] {
  const imports = importsOf(file.text).flatMap(({ line, text }) => {
    const problem = importProblem(file, text)
    return problem === undefined ? [] : [`${file.path}:${line} imports '${text}': ${problem}`]
  })
  const sql = file.workspace === '' || mayHoldSql(file.path) ? [] : sqlIn(file.text)
  const places = sql.map(({ line, text }) => `${file.path}:${line} holds SQL outside the store: ${text.slice(0, 60)}`)
  const lines = file.text.split('\n').length - 1
  const long = lines > MAX_LINES && !file.path.startsWith('test/')
  return [...imports, ...places, ...(long ? [`${file.path} has ${lines} lines, more than ${MAX_LINES}`] : [])]
}

/** A workspace has one way in, and a place in the arrows. */
function workspaceProblems(root: string, manifest: string): string[] {
  const { exports } = JSON.parse(readFileSync(join(root, manifest), 'utf8')) as { exports?: unknown }
  const name = manifest.split('/')[1] ?? ''
  return [
    ...(exports === './src/index.ts' || manifest === PUBLISHED ? [] : [`${manifest} exports more than ./src/index.ts`]),
    ...(name in ARROWS ? [] : [`${manifest}: ${name} has no place in the arrows of scripts/check-architecture.ts`]),
  ]
}

/** The rules of docs/development.md: arrows, ways in, where SQL may stand, how long a file may be. */
export function checkArchitecture(root: string): GateResult {
  const paths = filesBelow(root, ['.ts', '.js', '.mjs'])
  const sources = paths.filter((path) => /^(?:apps|packages)\//.test(path) || OUTSIDE.test(path) || !path.includes('/'))
  const manifests = filesBelow(root, ['package.json']).filter((path) =>
    /^(?:apps|packages)\/[^/]+\/package.json$/.test(path),
  )
  const problems = [
    ...manifests.flatMap((path) => workspaceProblems(root, path)),
    ...sources.flatMap((path) => problemsOf(readSource(root, path))),
  ]
  return { looked: sources.length, there: paths.length, problems }
}
