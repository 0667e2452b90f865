import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Installs what a folder with a lockfile of its own needs, with `npm ci`, unless it is there as the lockfile says.
 * @throws when npm fails or `signal` aborts
 */
export async function installFolder(folder: string, signal?: AbortSignal): Promise<void> {
  const stamp = join(folder, 'node_modules', '.installed-for')
  const wanted = createHash('sha256')
    .update(readFileSync(join(folder, 'package-lock.json')))
    .digest('hex')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return
  process.stderr.write(`npm ci in ${folder}\n`)
  await new Promise<void>((resolve, reject) => {
    const child = spawn('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'inherit'],
      ...(signal === undefined ? {} : { signal }),
    })
    child.once('error', reject)
    child.once('exit', (code) => {
      if (code === 0) resolve()
      else reject(new Error(`npm ci in ${folder} ended with code ${code}`))
    })
  })
  writeFileSync(stamp, wanted)
}
