import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { filesBelow, type GateResult } from './tree.ts'

const PACKAGE = 'packages/client'

type Manifest = Record<string, unknown> & { name: string; version: string }

/** A program that uses both entries as a browser's does: without the types of Node. */
const CONSUMER = `import { Askonce, withIdempotency, type Job } from '@askonce/client'
import { fileKeyStore } from '@askonce/client/node'
export const send: typeof fetch = withIdempotency(fetch)
export const store = fileKeyStore
export const states = async (id: string): Promise<Job['state']> => (await new Askonce().get(id)).state
`
const CONSUMER_CONFIG = {
  compilerOptions: {
    strict: true,
    module: 'nodenext',
    target: 'es2023',
    lib: ['es2023', 'dom', 'dom.iterable'],
    types: [],
    noEmit: true,
    // What the package says about its types has to hold by itself.
    skipLibCheck: false,
  },
  files: ['consumer.ts'],
}
const IMPORTS = `const [main, node] = await Promise.all([import('@askonce/client'), import('@askonce/client/node')])
if (typeof main.withIdempotency(fetch) !== 'function' || typeof node.fileKeyStore !== 'function') process.exit(1)`

/** What a command said if it failed. */
function run(cwd: string, program: string, args: readonly string[]): { stdout: string; problems: string[] } {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd, encoding: 'utf8' })
  const failed = `${program.split('/').at(-1) ?? ''} ${args[0] ?? ''}: ${error?.message ?? `${stdout}${stderr}`.trim()}`
  return { stdout: stdout ?? '', problems: status === 0 ? [] : [failed] }
}

function readManifest(path: string): Manifest {
  return JSON.parse(readFileSync(path, 'utf8')) as Manifest
}

function manifestProblems(root: string, manifest: Manifest): string[] {
  const { version } = readManifest(join(root, 'package.json'))
  const at = `${PACKAGE}/package.json`
  return [
    ...(manifest.version === version ? [] : [`${at} has version ${manifest.version}, the repository ${version}`]),
    ...['private', 'dependencies', 'peerDependencies', 'optionalDependencies']
      .filter((name) => name in manifest)
      .map((name) => `${at} has ${name}: it is published, and needs nothing`),
  ]
}

/** The files that have to be in the package: two for each source, and what npm and people look for. */
function filesWanted(root: string): string[] {
  const built = filesBelow(root, ['.ts'], `${PACKAGE}/src`).flatMap((path) => {
    const name = path.slice(`${PACKAGE}/src/`.length, -'.ts'.length)
    return [`dist/${name}.js`, `dist/${name}.d.ts`]
  })
  return [...built, 'LICENSE', 'README.md', 'package.json'].toSorted()
}

/** Installs the packed file somewhere else, compiles against it and loads it. */
function consumerProblems(root: string, folder: string, packed: string): string[] {
  const bin = join(root, 'node_modules/.bin')
  mkdirSync(join(folder, 'node_modules/@askonce'), { recursive: true })
  const unpacked = run(folder, 'tar', ['-xzf', packed])
  if (unpacked.problems.length > 0) return unpacked.problems
  renameSync(join(folder, 'package'), join(folder, 'node_modules/@askonce/client'))
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(folder, 'consumer.ts'), CONSUMER)
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(CONSUMER_CONFIG))
  return [
    ...run(folder, join(bin, 'tsc'), ['-p', 'tsconfig.json', '--pretty', 'false']).problems,
    ...run(folder, process.execPath, ['--input-type=module', '-e', IMPORTS]).problems,
  ]
}

/**
 * Whether what would be published works: builds and packs it as npm does, has publint and attw look at it (ESM only, so what a
 * `require` would find is not asked), compiles a program against it and loads it. Needs no network.
 */
export function checkPackage(root: string): GateResult {
  const folder = join(root, PACKAGE)
  const bin = join(root, 'node_modules/.bin')
  const manifest = readManifest(join(folder, 'package.json'))
  const wanted = filesWanted(root)
  const scratch = mkdtempSync(join(tmpdir(), 'askonce-package-'))
  try {
    rmSync(join(folder, 'dist'), { recursive: true, force: true })
    const problems = [
      ...manifestProblems(root, manifest),
      ...['tsconfig.build.json', 'tsconfig.build-node.json'].flatMap(
        (config) => run(folder, join(bin, 'tsc'), ['-p', config, '--pretty', 'false']).problems,
      ),
    ]
    const pack = run(folder, 'npm', ['pack', '--ignore-scripts', '--offline', '--json', '--pack-destination', scratch])
    if (pack.problems.length > 0) return { looked: 0, there: wanted.length, problems: [...problems, ...pack.problems] }
    const [{ filename, files } = { filename: '', files: [] }] = JSON.parse(pack.stdout) as {
      filename: string
      files: { path: string }[]
    }[]
    const packed = join(scratch, filename)
    const paths = files.map(({ path }) => path)
    problems.push(
      ...wanted.filter((path) => !paths.includes(path)).map((path) => `the package lacks ${path}`),
      ...paths.filter((path) => !wanted.includes(path)).map((path) => `the package has ${path}, which nobody needs`),
      ...run(scratch, join(bin, 'publint'), ['run', packed, '--strict']).problems,
      ...run(scratch, join(bin, 'attw'), [packed, '--profile', 'esm-only', '--no-definitely-typed']).problems,
      ...consumerProblems(root, scratch, packed),
    )
    return { looked: paths.length, there: wanted.length, problems }
  } finally {
    rmSync(scratch, { recursive: true })
  }
}
