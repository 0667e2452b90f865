import { type FileHandle, mkdtemp, open, rm, rmdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CliError, exitCodes, reasonOf, usageError } from '../errors.ts'
import { type LineDefaults, LineProblem, parseLine, type PreparedLine } from './parse-line.ts'
import { decode, readAt, readLines } from './read-lines.ts'

/** One line of the input that asks something. */
export interface InputLine {
  /** Place among the lines of the file, from 0, empty ones counted: `index` of its answer. */
  index: number
  offset: number
  length: number
  customId: string | undefined
  /** Number of the question that it asks; equal lines ask the same one. */
  ask: number
}

/** One question: a key, asked by one or more lines. */
export interface Ask {
  key: string
  fingerprint: string
  /** Numbers in {@link BatchInput.lines}. */
  lines: number[]
}

export interface BadLine {
  /** From 1, as editors count. */
  line: number
  pointer: string
  message: string
}

/**
 * The checked input. Only places, keys and fingerprints are kept, some 200 bytes a line; the requests stay on disk until their turn.
 */
export interface BatchInput {
  lines: InputLine[]
  asks: Ask[]
  /** The first bad lines, and how many there are. */
  bad: { shown: BadLine[]; total: number }
  /** The question again, for sending. Throws CliError when the file is no longer what was checked. */
  prepare(ask: number): Promise<PreparedLine>
  /** Whether this is the file of that device and inode. */
  isFile(stat: { dev: number; ino: number }): boolean
  close(): Promise<void>
}

const shownBadLines = 20

/** Reads and checks every line of a file, or of stdin for `-`. `onLine` is told how many were read. */
export async function readInput(
  source: string,
  defaults: LineDefaults,
  onLine: (lines: number) => void,
): Promise<BatchInput> {
  const file = await openInput(source)
  const stat = await file.stat()
  const lines: InputLine[] = []
  const asks: Ask[] = []
  const askOfKey = new Map<string, number>()
  const bad: BatchInput['bad'] = { shown: [], total: 0 }
  const report = (index: number, { message, pointer }: LineProblem): void => {
    bad.total += 1
    if (bad.total <= shownBadLines) bad.shown.push({ line: index + 1, pointer, message })
  }

  let index = -1
  for await (const { offset, bytes } of readLines(file)) {
    index += 1
    onLine(index + 1)
    try {
      const text = decode(bytes)
      if (text === null) throw new LineProblem('not UTF-8 text', '')
      if (text.trim() === '') continue
      const { key, fingerprint, customId } = parseLine(text, defaults)
      let ask = askOfKey.get(key)
      if (ask === undefined) {
        ask = asks.push({ key, fingerprint, lines: [] }) - 1
        askOfKey.set(key, ask)
      }
      const entry = asks[ask] as Ask
      if (entry.fingerprint !== fingerprint) {
        const first = (lines[entry.lines[0] ?? 0]?.index ?? 0) + 1
        throw new LineProblem(
          `the key ${JSON.stringify(key)} names another request on line ${first}`,
          customId === undefined ? '/key' : '/custom_id',
        )
      }
      entry.lines.push(lines.push({ index, offset, length: bytes.length, customId, ask }) - 1)
    } catch (error) {
      if (!(error instanceof LineProblem)) throw error
      report(index, error)
    }
  }

  return {
    lines,
    asks,
    bad,
    async prepare(ask) {
      const { key, fingerprint, lines: askers } = asks[ask] as Ask
      const { offset, length } = lines[askers[0] as number] as InputLine
      const prepared = prepareAgain(decode(await readAt(file, offset, length)) ?? '', defaults)
      if (prepared?.key === key && prepared.fingerprint === fingerprint) return prepared
      throw new CliError(exitCodes.usage, `${source} was changed while it was being read`, 'Run it again.')
    },
    isFile: ({ dev, ino }) => stat.dev === dev && stat.ino === ino,
    close: () => file.close(),
  }
}

function prepareAgain(text: string, defaults: LineDefaults): PreparedLine | null {
  try {
    return parseLine(text, defaults)
  } catch {
    return null
  }
}

/** A file that can be read twice: every line is checked before the first one is sent. A pipe is copied to disk for that. */
async function openInput(source: string): Promise<FileHandle> {
  if (source === '-') return copyOf(process.stdin)
  const file = await open(source, 'r').catch((error: unknown) => {
    throw usageError(`cannot read ${source}: ${reasonOf(error)}`)
  })
  const stat = await file.stat()
  if (stat.isFile()) return file
  if (stat.isDirectory()) {
    await file.close()
    throw usageError(`${source} is a directory`)
  }
  return copyOf(file.createReadStream())
}

/** The copy has no name once it is open, so that nothing is left behind however this process ends. */
async function copyOf(stream: AsyncIterable<Buffer>): Promise<FileHandle> {
  const directory = await mkdtemp(join(tmpdir(), 'askonce-'))
  const path = join(directory, 'input')
  const file = await open(path, 'wx+', 0o600)
  await rm(path)
  await rmdir(directory)
  for await (const chunk of stream) await file.appendFile(chunk)
  return file
}
