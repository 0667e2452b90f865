import { readFile } from 'node:fs/promises'
import { reasonOf, usageError } from './errors.ts'

/** The text of a file, or of stdin for `-`. UTF-8; a byte order mark is dropped. */
export async function readText(source: string): Promise<string> {
  const bytes =
    source === '-'
      ? await readStdin()
      : await readFile(source).catch((error: unknown) => {
          throw usageError(`cannot read ${source}: ${reasonOf(error)}`)
        })
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw usageError(`${source === '-' ? 'stdin' : source} is not UTF-8 text`)
  }
}

async function readStdin(): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}
