import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { AttemptEndRecord } from '@askonce/store'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { decodeRecord, encodeRecord, SpoolError, type SpoolRecord } from '../../apps/worker/src/spool-record.ts'
import { Spool, spoolTrouble } from '../../apps/worker/src/spool.ts'

const jobId = '0199c0de-0000-7000-8000-000000000001'

function record(change: Partial<AttemptEndRecord> = {}): SpoolRecord {
  return {
    database: 'db-1',
    tenant: 'acme',
    end: {
      jobId,
      attempt: 1,
      action: 'answer',
      outcome: 'answered',
      billing: 'billed',
      uncounted: false,
      onlyOpen: false,
      delayMs: 0,
      backoff: false,
      error: null,
      errorCode: null,
      providerStatus: 200,
      providerRequestId: 'req_1',
      inputTokens: 3,
      outputTokens: 5,
      costUsd: 0.0001,
      response: Buffer.from([0, 10, 13, 255, 254, 34, 92, 10]),
      responsePieces: null,
      responseBytes: null,
      contentType: 'application/json',
      answerId: 'chatcmpl-1',
      errorResponse: null,
      errorContentType: null,
      flags: ['truncated'],
      ...change,
    },
  }
}

const faultOf = async (content: Buffer): Promise<string> => {
  try {
    await decodeRecord(content)
    return 'none'
  } catch (error) {
    return error instanceof SpoolError ? error.fault : String(error)
  }
}

const encoded = async (one: SpoolRecord): Promise<Buffer> => Buffer.concat(await encodeRecord(one))

describe('a record', async () => {
  const whole = await encoded(record())

  test('comes back as it was, bytes and all', async () => {
    expect(await decodeRecord(whole)).toEqual(record())
    const empty = record({ response: Buffer.alloc(0) })
    expect(await decodeRecord(await encoded(empty))).toEqual(empty)
  })

  test('the answer stands in the file as it came, behind two lines', async () => {
    const [first, second, answer] = await encodeRecord(record())
    expect(first?.toString()).toMatch(/^askonce-answer 1 [0-9a-f]{64}\n$/)
    expect(second?.toString().indexOf('\n')).toBe((second?.length ?? 0) - 1)
    expect(answer).toEqual(record().end.response)
  })

  test('one changed bit anywhere gives it away: in the answer, in what stands beside it, in the checksum', async () => {
    for (let index = 0; index < whole.length; index += 1) {
      const changed = Buffer.from(whole)
      changed[index] = (changed[index] ?? 0) ^ 1
      expect({ index, fault: await faultOf(changed) }).toEqual({
        index,
        fault: expect.stringMatching(/^(?:damaged|version)$/) as string,
      })
    }
  })

  test('cut short after any byte it is no record', async () => {
    expect(await faultOf(whole.subarray(0, 0))).toBe('empty')
    for (let length = 1; length < whole.length; length += 1) {
      expect({ length, fault: await faultOf(whole.subarray(0, length)) }).toEqual({ length, fault: 'damaged' })
    }
    expect(await faultOf(Buffer.concat([whole, Buffer.from('x')]))).toBe('damaged')
  })

  test('of another format version it is told apart from damage', async () => {
    expect(await faultOf(Buffer.from(whole.toString('latin1').replace('answer 1', 'answer 2'), 'latin1'))).toBe(
      'version',
    )
  })

  test('what is well summed up but not an answer is not delivered', async () => {
    const wrong: Partial<Record<keyof AttemptEndRecord, unknown>>[] = [
      { action: 'stop' },
      { outcome: 'lost' },
      { billing: 'none' },
      { attempt: 0 },
      { jobId: 'somebody' },
      { costUsd: -1 },
      { inputTokens: 1.5 },
      { onlyOpen: true },
      { extra: 1 } as never,
    ]
    for (const change of wrong) {
      const content = await encoded(record(change as Partial<AttemptEndRecord>))
      expect({ change, fault: await faultOf(content) }).toEqual({ change, fault: 'damaged' })
    }
  })
})

describe('the directory', () => {
  let directory: string
  let spool: Spool
  beforeEach(async () => {
    directory = join(await mkdtemp(join(tmpdir(), 'askonce-spool-')), 'a', 'spool')
    spool = new Spool(directory)
  })
  afterEach(() => rm(join(directory, '..', '..'), { recursive: true, force: true }))

  const fault = async (path: string): Promise<string> => {
    const error: unknown = await spool.read(path).catch((thrown: unknown) => thrown)
    return error instanceof SpoolError ? error.fault : 'none'
  }

  test('is made when it is missing, even after somebody has removed it, and is for its owner only', async () => {
    expect(await spool.list()).toEqual([])
    const first = await spool.write(record())
    expect(first).toBe(join(directory, `${jobId}.1.answer`))
    expect([(await stat(directory)).mode & 0o777, (await stat(first)).mode & 0o777]).toEqual([0o700, 0o600])
    await rm(directory, { recursive: true })
    await spool.write(record({ attempt: 2 }))
    expect(await spool.read((await spool.list())[0] ?? '')).toEqual(record({ attempt: 2 }))
  })

  test('lists records only, in order; writing one twice leaves one', async () => {
    await spool.write(record({ attempt: 2 }))
    await spool.write(record())
    await spool.write(record())
    for (const name of ['notes.txt', '.x.tmp', `${jobId}.answer`, `${jobId}.3.answer.damaged`, `${jobId}.3.json`]) {
      await writeFile(join(directory, name), 'x')
    }
    expect(await spool.list()).toEqual([1, 2].map((attempt) => join(directory, `${jobId}.${attempt}.answer`)))
  })

  test('tells what each unusable file is, and a good one beside them is read', async () => {
    const good = await spool.write(record({ attempt: 9 }))
    const path = (attempt: number): string => join(directory, `${jobId}.${attempt}.answer`)
    await writeFile(path(1), '')
    await writeFile(path(2), (await readFile(good)).subarray(0, 200))
    await writeFile(path(3), await readFile(good))
    await mkdir(path(4))
    await symlink(good, path(5))
    await writeFile(path(6), '')
    // A hole: no disk is used.
    await truncate(path(6), 2 * 1024 ** 3)
    expect(await Promise.all([1, 2, 3, 4, 5, 6, 9].map((attempt) => fault(path(attempt))))).toEqual([
      'empty',
      'damaged',
      'misnamed',
      'not_a_file',
      'not_a_file',
      'too_large',
      'none',
    ])
  })

  test('a file that may not be read is told apart from one that is gone', async () => {
    const path = await spool.write(record())
    await chmod(path, 0)
    const root = process.geteuid?.() === 0
    // Root reads everything: look as somebody else.
    if (root) {
      await chmod(join(directory, '..', '..'), 0o755)
      await chmod(join(directory, '..'), 0o755)
      await chmod(directory, 0o755)
      process.seteuid?.(65_534)
    }
    try {
      expect(await fault(path)).toBe('unreadable')
    } finally {
      if (root) process.seteuid?.(0)
    }
    await rm(path)
    await expect(spool.read(path)).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test('what is set aside is kept, and never overwrites what was set aside before', async () => {
    const names: string[] = []
    for (const text of ['first', 'second', 'third']) {
      const path = join(directory, `${jobId}.1.answer`)
      await spool.probe()
      await writeFile(path, text)
      names.push(await spool.setAside(path, 'damaged'))
    }
    expect(await Promise.all(names.map((name) => readFile(name, 'utf8')))).toEqual(['first', 'second', 'third'])
    expect(await spool.list()).toEqual([])
    const folder = join(directory, `${jobId}.2.answer`)
    await mkdir(folder)
    expect(await spool.setAside(folder, 'damaged')).toBe(`${folder}.damaged`)
  })

  test('temporary files of the dead: a whole one becomes a record, an empty one goes, a torn one is reported', async () => {
    const written = await spool.write(record())
    const whole = await readFile(written)
    const temporary = (number: number, ending = 'tmp'): string =>
      join(directory, `.0199c0de-0000-7000-8000-00000000000${number}.${ending}`)
    await rename(written, temporary(1))
    await writeFile(temporary(2), '')
    await writeFile(temporary(3), whole.subarray(0, whole.length - 1))
    await writeFile(temporary(4, 'probe'), 'askonce')
    // One that a living process may be writing.
    await writeFile(temporary(5), whole.subarray(0, 50))
    const past = new Date(Date.now() - 120_000)
    for (const path of [temporary(1), temporary(2), temporary(3), temporary(4, 'probe')]) await utimes(path, past, past)
    const torn: string[] = []
    await spool.salvage(async (path, error) => {
      torn.push(`${path} ${error.fault}`)
      await spool.setAside(path, 'damaged')
    })
    expect(torn).toEqual([`${temporary(3)} damaged`])
    expect((await readdir(directory)).toSorted()).toEqual(
      [temporary(3), temporary(5), written]
        .map((path) => path.slice(directory.length + 1))
        .map((name) => (name.includes('0003.tmp') ? `${name.slice(1)}.damaged` : name))
        .toSorted(),
    )
    expect(await spool.read(written)).toEqual(record())
  })

  test('what cannot be written says why, and leaves nothing behind', async () => {
    await mkdir(join(directory, '..'), { recursive: true })
    await writeFile(directory, 'a file has the name of the directory')
    const error: unknown = await spool.write(record()).catch((thrown: unknown) => thrown)
    expect(spoolTrouble(error)).toBe('something else has its name (EEXIST)')
    await expect(spool.probe()).rejects.toMatchObject({ code: 'EEXIST' })
    await rm(directory)
    await spool.probe()
    expect(await readdir(directory)).toEqual([])
  })
})
