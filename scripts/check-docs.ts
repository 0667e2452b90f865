import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { errorRegistry } from '@askonce/core'
import { cliCommands } from './cli-commands.ts'
import { generatedDocs } from './generated-docs.ts'
import { anchorsIn, codeIn, linksIn } from './markdown.ts'
import { filesBelow, type GateResult } from './tree.ts'

type Page = { path: string; text: string }

/** The forms in which npm runs a script. */
const NPM_SCRIPT = /\bnpm (?:run(?:-script)? ([\w:.-]+)|(start|test)\b)/g

function generatedProblems(root: string): string[] {
  try {
    return generatedDocs(root)
      .filter(({ is, shouldBe }) => is !== shouldBe)
      .map(({ path }) => `${path} is not what the code says: npm run docs`)
  } catch (error) {
    return [String(error)]
  }
}

/** docs/errors.md has a table row for each code of the registry, and none for anything else. */
function errorProblems(root: string): string[] {
  const path = 'docs/errors.md'
  if (!existsSync(join(root, path))) return [`${path} is missing`]
  const rows = [...readFileSync(join(root, path), 'utf8').matchAll(/^\|\s*`([a-z][a-z0-9_]*)`/gm)].map(
    ([, code = '']) => code,
  )
  const known = Object.keys(errorRegistry)
  return [
    ...known.filter((code) => !rows.includes(code)).map((code) => `${path} lacks ${code}`),
    ...rows.filter((code) => !known.includes(code)).map((code) => `${path} has ${code}, which no registry knows`),
    ...rows.filter((code, index) => rows.indexOf(code) < index).map((code) => `${path} has ${code} twice`),
  ]
}

function linkProblems(root: string, page: Page): string[] {
  return linksIn(page.text).flatMap(({ line, target }) => {
    const [file = '', anchor] = target.split('#')
    const path = file === '' ? page.path : normalize(join(dirname(page.path), decodeURIComponent(file)))
    const at = `${page.path}:${line} links to ${target}`
    if (path.startsWith('..') || !existsSync(join(root, path))) return [`${at}: no such file`]
    if (anchor === undefined || !path.endsWith('.md') || statSync(join(root, path)).isDirectory()) return []
    return anchorsIn(readFileSync(join(root, path), 'utf8')).includes(anchor) ? [] : [`${at}: no such heading`]
  })
}

type Commands = ReadonlyMap<string, readonly string[]>

/** Commands of `askonce` in one line of code that do not exist. */
function unknownCommands(code: string, commands: Commands): string[] {
  const asked = [...code.matchAll(/(?:^|[\s(])(askonce ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?)/g)]
  return asked.flatMap(([, call = '', name = '', sub]) => {
    const subs = commands.get(name)
    const known = subs !== undefined && (sub === undefined || subs.length === 0 || subs.includes(sub))
    return known ? [] : [call]
  })
}

function commandProblems(page: Page, scripts: readonly string[], commands: Commands): string[] {
  return codeIn(page.text).flatMap(({ line, text }) => {
    const npm = [...text.matchAll(NPM_SCRIPT)].map((match) => match[1] ?? match[2] ?? '')
    const wrong = [
      ...npm.filter((name) => !scripts.includes(name)).map((name) => `npm script ${name}`),
      ...unknownCommands(text, commands),
    ]
    return wrong.map((command) => `${page.path}:${line} runs ${command}: there is no such command`)
  })
}

/** The documentation says what the code does, as far as a program can compare them. */
export function checkDocs(root: string, commands: Commands = cliCommands(root)): GateResult {
  const there = filesBelow(root, ['.md']).filter((path) => path === 'README.md' || /^(?:docs|deploy)\//.test(path))
  const pages = there.map((path): Page => ({ path, text: readFileSync(join(root, path), 'utf8') }))
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  const problems = [
    ...(there.includes('README.md') ? [] : ['README.md is missing']),
    ...generatedProblems(root),
    ...errorProblems(root),
    ...pages.flatMap((page) => linkProblems(root, page)),
    ...pages.flatMap((page) => commandProblems(page, Object.keys(scripts), commands)),
  ]
  return { looked: pages.length, there: there.length, problems }
}
