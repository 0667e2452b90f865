import { constants } from 'node:fs'
import { access, mkdtemp, readdir, rm, statfs, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { connectionsWithin, filesOfApi, filesOfWorker, openFilesLimit, type Config } from '@askonce/config'
import { reasonOf } from '../errors.ts'
import { count } from '../format.ts'
import { type Check, ok, problem, warn } from './check.ts'

const mebibyte = 1024 * 1024
const scarceBytes = 1024 * mebibyte
const emptyBytes = 64 * mebibyte

/** Node itself: what package.json asks for. */
export function checkNode(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const fits = major > 20 || (major === 20 && minor >= 19)
  if (fits) return ok('node', process.versions.node)
  return problem('node', `${process.versions.node} is too old`, 'Install Node.js 20.19 or newer.')
}

/** Files and connections that a process started like this one may have open, against what `askonce start` can need. */
export function checkOpenFiles(config: Config): Check {
  const name = 'open files'
  const limit = openFilesLimit()
  if (limit === null) return ok(name, 'no limit')
  const needed = filesOfApi(config) + filesOfWorker(config)
  if (limit >= needed) return ok(name, `${limit} may be open`)
  return warn(
    name,
    `${limit} may be open: an API started like this takes ${connectionsWithin(limit, config)} connections, not 10000`,
    `Raise the limit to ${needed}: LimitNOFILE of systemd, ulimits of Docker, or ulimit -n in the shell.`,
  )
}

/** The data directory: can it be written, and is there room for answers that must not be lost. */
export async function checkDataDirectory({ dataDir }: Config): Promise<Check[]> {
  const name = 'data directory'
  const elsewhere = 'Give the user that runs Askonce the right to write there, or set ASKONCE_DATA_DIR.'
  try {
    const probe = await mkdtemp(join(dataDir, '.doctor-'))
    try {
      await writeFile(join(probe, 'probe'), 'askonce')
    } finally {
      await rm(probe, { recursive: true, force: true })
    }
    return [await room(name, dataDir, dataDir)]
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      return [problem(name, `${dataDir} cannot be written: ${reasonOf(error)}`, elsewhere)]
    }
  }
  const parent = dirname(dataDir)
  const writable = await access(parent, constants.W_OK).then(
    () => true,
    () => false,
  )
  if (!writable) return [problem(name, `${dataDir} is not there and cannot be made`, elsewhere)]
  return [await room(name, `${dataDir} (made at the first start)`, parent)]
}

async function room(name: string, shown: string, path: string): Promise<Check> {
  const { bavail, bsize } = await statfs(path)
  const free = bavail * bsize
  const detail = `${shown}, ${free > 10 * scarceBytes ? `${Math.round(free / scarceBytes)} GiB` : `${Math.round(free / mebibyte)} MiB`} free`
  if (free < emptyBytes)
    return problem(name, detail, 'Free some disk space: answers that are paid for could not be kept.')
  return free < scarceBytes ? warn(name, detail, 'Free some disk space.') : ok(name, detail)
}

/** Answers that a worker could not store. */
export async function checkSpool({ worker: { spoolDir } }: Config): Promise<Check> {
  const name = 'spool'
  try {
    const files = (await readdir(spoolDir)).filter((file) => file.endsWith('.answer'))
    if (files.length === 0) return ok(name, 'empty')
    const detail = `${count(files.length, 'paid answer')} in ${spoolDir} not yet stored`
    const todo =
      'A worker on this directory delivers them when it starts and while it runs. Files that stay belong to another database: its log names them.'
    return warn(name, detail, todo)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ok(name, 'empty')
    return problem(name, `${spoolDir} cannot be read: ${reasonOf(error)}`, 'Give the worker its directory back.')
  }
}
