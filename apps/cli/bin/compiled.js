import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

// Node before 22.18 cannot run TypeScript. A loader that translates each module as it is imported costs every process
// about one and a half seconds of CPU (it sees the hundreds of modules of the libraries too), so the sources are
// translated once, into `node_modules/.cache/askonce-<fingerprint of the sources>/`, and every later start imports that.
// That folder lies as deep as the sources (`packages/store/src`): what they find beside them is found from there too.

const root = fileURLToPath(new URL('../../..', import.meta.url))
const cache = join(root, 'node_modules/.cache')
const HOUR = 3_600_000

/** Every source that the program can be made of, with what would change if it did. */
function fingerprint() {
  const hash = createHash('sha256').update(process.versions.node)
  for (const group of ['packages', 'apps']) {
    for (const name of readdirSync(join(root, group)).toSorted()) {
      const source = join(root, group, name, 'src')
      if (!existsSync(source)) continue
      for (const entry of readdirSync(source, { recursive: true, encoding: 'utf8' }).toSorted()) {
        const { size, mtimeMs } = statSync(join(source, entry))
        hash.update(`${group}/${name}/${entry} ${size} ${mtimeMs}\n`)
      }
    }
  }
  return hash.digest('hex').slice(0, 16)
}

/** Modules that run in threads of their own (packages/threads): a file each, under its own name. */
function threadModules() {
  const modules = {}
  for (const group of ['packages', 'apps']) {
    for (const entry of readdirSync(join(root, group), { recursive: true, encoding: 'utf8' })) {
      if (/^[^/\\]+[/\\]src[/\\].*-thread\.ts$/.test(entry)) {
        modules[basename(entry, '.ts')] = join(root, group, entry)
      }
    }
  }
  return modules
}

async function compile(target) {
  const { build } = await import('esbuild')
  // Its own folder until it is whole: several processes may start at once, and any of them may be killed.
  const draft = join(cache, `askonce-draft-${process.pid}`)
  mkdirSync(draft, { recursive: true })
  try {
    await build({
      entryPoints: { index: join(root, 'apps/cli/src/index.ts'), ...threadModules() },
      outdir: draft,
      bundle: true,
      splitting: true,
      format: 'esm',
      platform: 'node',
      target: 'node20.19',
      sourcemap: 'linked',
      logLevel: 'silent',
      plugins: [ownCodeOnly],
    })
    renameSync(draft, target)
  } catch (error) {
    // Another process was faster.
    if (!existsSync(join(target, 'index.js'))) throw error
  } finally {
    rmSync(draft, { recursive: true, force: true })
  }
}

/** Libraries stay what was installed. */
const ownCodeOnly = {
  name: 'own-code-only',
  setup(build) {
    build.onResolve({ filter: /^[^./]/ }, ({ path, kind }) =>
      kind === 'entry-point' || path.startsWith('@askonce/') ? undefined : { path, external: true },
    )
  },
}

/** What older sources were translated to, and what a killed process left; not what a process may just be starting from. */
function forgetOlder(current) {
  for (const name of readdirSync(cache)) {
    const path = join(cache, name)
    if (!name.startsWith('askonce-') || path === current) continue
    if (Date.now() - statSync(path).mtimeMs > HOUR) rmSync(path, { recursive: true, force: true })
  }
}

/** The program's entry, translated: a file URL. Throws if it cannot be written, as in a folder of somebody else's. */
export async function compiledEntry() {
  const target = join(cache, `askonce-${fingerprint()}`)
  const entry = join(target, 'index.js')
  if (!existsSync(entry)) {
    await compile(target)
    forgetOlder(target)
  }
  return new URL(`file://${entry}`)
}
