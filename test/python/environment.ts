import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const folder = new URL('../../node_modules/.cache/python', import.meta.url).pathname
const requirements = join(import.meta.dirname, 'requirements.txt')

/**
 * A virtual environment with what requirements.txt names, made anew when that changes; the path of its Python.
 * @throws when Python or pip cannot make it: tests without it would be no tests
 */
export async function preparePython(): Promise<string> {
  const python = join(folder, 'bin/python')
  const stamp = join(folder, 'installed-for')
  const wanted = createHash('sha256')
    .update(await readFile(requirements))
    .digest('hex')
  if (existsSync(python) && existsSync(stamp) && (await readFile(stamp, 'utf8')) === wanted) return python
  await rm(folder, { recursive: true, force: true })
  await run(
    ['python3', '-m', 'venv', folder],
    'Python 3 with its venv module is needed (Debian: python3, python3-venv)',
  )
  await run(
    [
      python,
      '-m',
      'pip',
      'install',
      '--quiet',
      '--disable-pip-version-check',
      '--retries',
      '2',
      '--requirement',
      requirements,
    ],
    'pip could not install what test/python/requirements.txt names',
  )
  // Last: whatever was cut off before is made anew.
  await writeFile(stamp, wanted)
  return python
}

async function run(command: readonly [string, ...string[]], failure: string): Promise<void> {
  const [program, ...args] = command
  const code = await new Promise<number | string | null>((resolve) => {
    const child = spawn(program, args, { stdio: ['ignore', 2, 2] })
    child.once('error', ({ message }) => resolve(message))
    child.once('close', resolve)
  })
  if (code !== 0) throw new Error(`${failure}: ${command.join(' ')} ended with ${code}`)
}
