import { constants, writeSync } from 'node:fs'
import { access, type FileHandle, open, realpath, rename, rm, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { CliError, exitCodes, reasonOf, usageError } from '../errors.ts'
import { answerLine, readAnswer } from './answer-line.ts'
import type { Ask, BatchInput } from './input.ts'
import { removeLeftovers, temporaryName } from './leftovers.ts'
import { decode, readAt, readLines } from './read-lines.ts'
import { linesOf, type Sink } from './sink.ts'

interface Place {
  offset: number
  length: number
  succeeded: boolean
}

/** Characters gathered before they are written when the file is put in order. */
const blockLength = 1024 * 1024

/** How every line of ours begins. */
const beginning = Buffer.from('{"index":')

/** Whether answers can be read back from there: a regular file, or a name that is still free. */
export async function isRegular(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => null)
  return found === null || found.isFile()
}

/**
 * Opens the output file of a batch. While the batch runs, whole lines are appended as answers come; what a killed run
 * left is kept, its torn last line cut off. At the end the file is written anew in the order of the input, next to it,
 * and renamed: at every moment it holds either the answers so far or all of them.
 *
 * Two runs on one file do no harm: both append whole lines, and the last to finish leaves the same file.
 */
export async function openOutFile(path: string, input: BatchInput): Promise<Sink> {
  const target = await realpath(path).catch(() => resolve(path))
  await removeLeftovers(target)
  const found = await openExisting(target, path)
  const kept = found === null ? new Set<number>() : await resume(found, path, input)
  let opening = found === null ? null : Promise.resolve(found)
  const opened = (): Promise<FileHandle> => (opening ??= openWith(target, path, constants.O_CREAT))
  return {
    kept,
    write: async (ask, tail) => append(await opened(), path, linesOf(input, ask, tail)),
    finish: async () => putInOrder(await opened(), target, input),
    close: async () => (await opening?.catch(() => null))?.close(),
  }
}

/** The file if it is there. Otherwise it is made by the first answer: a batch that never began leaves no empty file. */
async function openExisting(target: string, path: string): Promise<FileHandle | null> {
  if ((await stat(target).catch(() => null)) !== null) return openWith(target, path, 0)
  await access(dirname(target), constants.W_OK).catch((error: unknown) => {
    throw usageError(`cannot write ${path}: ${reasonOf(error)}`)
  })
  return null
}

async function openWith(target: string, path: string, flags: number): Promise<FileHandle> {
  return open(target, constants.O_RDWR | constants.O_APPEND | flags, 0o666).catch((error: unknown) => {
    throw usageError(`cannot write ${path}: ${reasonOf(error)}`)
  })
}

/** Cuts a torn last line off and returns the questions that have their answer already. Closes a file that it refuses. */
async function resume(file: FileHandle, path: string, input: BatchInput): Promise<Set<number>> {
  try {
    return await readKept(file, path, input)
  } catch (error) {
    await file.close()
    throw error
  }
}

async function readKept(file: FileHandle, path: string, input: BatchInput): Promise<Set<number>> {
  if (input.isFile(await file.stat())) throw usageError(`${path} is the input itself`, 'Choose another --out.')
  const { places, stale, foreign, torn } = await scan(file, input)
  const ours = places.size > 0 || stale > 0 || (foreign === 0 && (torn === null || torn.ours))
  if (!ours) {
    throw usageError(
      `${path} is there already and holds no answer to this input`,
      'Choose another --out, or remove it.',
    )
  }
  if (torn !== null) await file.truncate(torn.offset)
  return new Set([...places].filter(([, { succeeded }]) => succeeded).map(([ask]) => ask))
}

/** The answer to each question in the file, and what else is in it. */
async function scan(file: FileHandle, input: BatchInput) {
  const askOf = finder(input)
  const places = new Map<number, Place>()
  let [stale, foreign] = [0, 0]
  let torn: { offset: number; ours: boolean } | null = null
  for await (const { offset, bytes, whole } of readLines(file)) {
    const answer = whole ? readAnswer(decode(bytes) ?? '', input, askOf) : null
    if (!whole) torn = { offset, ours: beginsAsOurs(bytes) }
    else if (answer === null) foreign += 1
    else if (answer === 'stale') stale += 1
    // The last one counts (a later run may have asked a failed one again), but no success is given up for it.
    else if (answer.succeeded || places.get(answer.ask)?.succeeded !== true) {
      places.set(answer.ask, { offset, length: bytes.length, succeeded: answer.succeeded })
    }
  }
  return { places, stale, foreign, torn }
}

/** A whole text without line end that is no beginning of ours is somebody's file, and not ours to cut. */
function beginsAsOurs(bytes: Buffer): boolean {
  const length = Math.min(bytes.length, beginning.length)
  return bytes.subarray(0, length).equals(beginning.subarray(0, length))
}

function finder({ asks }: BatchInput): (key: string) => number | undefined {
  const askOfKey = new Map(asks.map(({ key }, ask) => [key, ask]))
  return (key) => askOfKey.get(key)
}

/** One write call for whole lines. Synchronous: order and wholeness cost nothing, and a line takes microseconds. */
function append(file: FileHandle, path: string, lines: string): void {
  const bytes = Buffer.from(lines)
  try {
    for (let done = 0; done < bytes.length;) done += writeSync(file.fd, bytes, done)
  } catch (error) {
    const hint = 'Make room and run the same command again: it continues, and pays nothing twice.'
    throw new CliError(exitCodes.failed, `cannot write ${path}: ${reasonOf(error)}`, hint)
  }
}

async function putInOrder(file: FileHandle, target: string, input: BatchInput): Promise<void> {
  const { places } = await scan(file, input)
  const temporary = temporaryName(target)
  try {
    const { mode } = await file.stat()
    const ordered = await open(temporary, 'wx', mode)
    try {
      await writeOrdered(ordered, file, input, places)
      await ordered.sync()
    } finally {
      await ordered.close()
    }
    await rename(temporary, target)
    await syncDirectory(dirname(target))
  } catch (error) {
    await rm(temporary, { force: true })
    if (error instanceof CliError) throw error
    const hint = 'Every answer is in it. Run the same command again to put it in order.'
    throw new CliError(exitCodes.failed, `cannot put ${target} in order: ${reasonOf(error)}`, hint)
  }
}

async function writeOrdered(
  ordered: FileHandle,
  file: FileHandle,
  input: BatchInput,
  places: ReadonlyMap<number, Place>,
): Promise<void> {
  const askOf = finder(input)
  let block = ''
  for (const line of input.lines) {
    const place = places.get(line.ask)
    const text = place === undefined ? null : decode(await readAt(file, place.offset, place.length))
    const answer = text === null ? null : readAnswer(text, input, askOf)
    if (answer === null || answer === 'stale') {
      throw new CliError(
        exitCodes.failed,
        'the output file was changed by something else',
        'Run the same command again.',
      )
    }
    block += answerLine(line, input.asks[line.ask] as Ask, answer.tail)
    if (block.length < blockLength) continue
    await ordered.appendFile(block)
    block = ''
  }
  await ordered.appendFile(block)
}

/** The rename itself survives a power cut only when the directory is on disk. Not every file system can do that. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r').catch(() => null)
  await directory?.sync().catch(() => undefined)
  await directory?.close()
}
