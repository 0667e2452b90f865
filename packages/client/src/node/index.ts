import { mkdirSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { KeyStore } from '../key-store.ts'
import { lockFile } from './file-lock.ts'
import { Journal } from './journal.ts'

/** Keys in a file. Close it at the end of the program; a program that dies without doing so loses nothing. */
export interface FileKeyStore extends KeyStore {
  add(digest: string, key: string): Promise<void>
  remove(digest: string, key: string): Promise<void>
  /** Writes what is under way and gives the file free for another process. */
  close(): Promise<void>
}

/**
 * Keys that outlive a crash of the program and of the machine: each is on the disk before its request leaves. The file holds
 * digests and random keys, no prompt and no answer. One process per file: a second one on the same machine is refused (processes on
 * other machines or in other containers are not seen, so do not share the file with them).
 * @param path of the file; it and its folder are made if they are not there
 * @throws Error when another process has it open, or when it is not a file of keys
 */
export function fileKeyStore(path: string): FileKeyStore {
  const file = resolve(path)
  mkdirSync(dirname(file), { recursive: true })
  const release = lockFile(`${file}.lock`)
  let journal: Journal
  try {
    journal = new Journal(file)
  } catch (error) {
    release()
    throw error
  }
  return {
    list: (digest) => journal.keys.list(digest),
    add: (digest, key) => journal.append({ add: key, digest }),
    remove: (digest, key) => journal.append({ done: key, digest }),
    async close() {
      await journal.close()
      release()
    },
  }
}
