import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync, appendFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileKeyStore, type FileKeyStore } from '@askonce/client/node'
import { leakCheck, spawnNode } from '@askonce/testkit'
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Journal } from '../../packages/client/src/node/journal.ts'

vi.setConfig({ testTimeout: 60_000 })

const writer = new URL('client-store-program.ts', import.meta.url).pathname

let folder = ''
let path = ''
let opened: FileKeyStore[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'askonce-store-'))
  path = join(folder, 'deeper', 'keys')
  opened = []
})
afterEach(async () => {
  vi.restoreAllMocks()
  await Promise.all(opened.map((store) => store.close()))
  rmSync(folder, { recursive: true })
})
afterAll(leakCheck)

function openStore(): FileKeyStore {
  const store = fileKeyStore(path)
  opened.push(store)
  return store
}

async function reopen(store: FileKeyStore): Promise<FileKeyStore> {
  opened = opened.filter((other) => other !== store)
  await store.close()
  return openStore()
}

/** The methods of the handles that the store writes through. */
async function handleMethods() {
  const handle = await open(join(folder, 'probe'), 'w')
  await handle.close()
  return Object.getPrototypeOf(handle) as { appendFile: () => Promise<void>; datasync: () => Promise<void> }
}

const lines = () => readFileSync(path, 'utf8').trimEnd().split('\n')

describe('what was added', () => {
  it('is there after a new start, and what was removed is not; the file holds no more than that', async () => {
    const store = openStore()
    await Promise.all([store.add('d1', 'k1'), store.add('d1', 'k2'), store.add('d2', 'k3')])
    await store.remove('d1', 'k1')
    expect(await store.list('d1')).toEqual(['k2'])
    expect(lines()).toHaveLength(5)
    const again = await reopen(store)
    expect([await again.list('d1'), await again.list('d2'), await again.list('d3')]).toEqual([['k2'], ['k3'], []])
    expect(lines()).toHaveLength(3)
  })

  it('is on the disk when add resolves, many with one fsync', async () => {
    const store = openStore()
    const methods = await handleMethods()
    const datasync = vi.spyOn(methods, 'datasync')
    const append = vi.spyOn(methods, 'appendFile')
    await store.add('d', 'first')
    expect([append.mock.calls.length, datasync.mock.calls.length]).toEqual([1, 1])
    expect(append.mock.invocationCallOrder[0]).toBeLessThan(datasync.mock.invocationCallOrder[0] ?? 0)
    await Promise.all(Array.from({ length: 500 }, (_, index) => store.add('d', `k${index}`)))
    expect(datasync.mock.calls.length).toBeLessThanOrEqual(3)
    // A "done" that is lost costs nothing.
    await store.remove('d', 'first')
    expect(datasync.mock.calls.length).toBeLessThanOrEqual(3)
    expect(await store.list('d')).toHaveLength(500)
  })

  it('does not count when the disk refuses it, and the next one is whole', async () => {
    const store = openStore()
    await store.add('d', 'before')
    const methods = await handleMethods()
    vi.spyOn(methods, 'datasync').mockRejectedValueOnce(new Error('EIO'))
    await expect(store.add('d', 'not on the disk')).rejects.toThrow('EIO')
    const real = methods.appendFile
    vi.spyOn(methods, 'appendFile').mockImplementationOnce(async function (this: unknown) {
      await Reflect.apply(real, this, ['{"add":"half'])
      throw new Error('ENOSPC')
    })
    await expect(store.add('d', 'refused')).rejects.toThrow('ENOSPC')
    expect(await store.list('d')).toEqual(['before'])
    await store.add('d', 'after')
    const again = await reopen(store)
    expect(await again.list('d')).toEqual(expect.arrayContaining(['before', 'after']))
    expect(await again.list('d')).not.toContain('refused')
  })
})

describe('a file that a crash left', () => {
  const head = '{"askonce":"idempotency keys","version":1}\n'
  const whole = `${head}{"add":"k1","digest":"d"}\n{"add":"k2","digest":"d"}\n{"done":"k1","digest":"d"}\n`

  it('is read however much of its last line is missing', async () => {
    // Every byte of the last two lines: k2 counts as long as its line is whole.
    for (let length = head.length; length <= whole.length; length += 1) {
      const file = join(folder, `torn-${length}`)
      writeFileSync(file, whole.slice(0, length))
      const journal = new Journal(file)
      const keys = [...journal.keys].map(({ key }) => key)
      const text = whole.slice(0, length)
      const expected = ['k1', 'k2'].filter(
        (key) => text.includes(`{"add":"${key}","digest":"d"}`) && !text.includes(`{"done":"${key}","digest":"d"}`),
      )
      expect(keys, text).toEqual(expected)
      await journal.append({ add: 'new', digest: 'd' })
      await journal.close()
      const next = new Journal(file)
      expect([...next.keys].map(({ key }) => key)).toEqual([...expected, 'new'])
    }
  })

  it('is left as it is when it is not a file of keys', () => {
    const mine = join(folder, 'mine')
    writeFileSync(mine, 'my notes\n')
    expect(() => fileKeyStore(mine)).toThrow('is not a file of keys')
    expect(readFileSync(mine, 'utf8')).toBe('my notes\n')
    expect(existsSync(`${mine}.lock`)).toBe(false)
  })

  it('a rewrite that was cut short leaves the old file', async () => {
    const store = openStore()
    await store.add('d', 'k')
    await store.close()
    writeFileSync(`${path}.new`, head.slice(0, 20))
    opened = []
    expect(await openStore().list('d')).toEqual(['k'])
  })
})

it('is rewritten while it is in use, and loses nothing', async () => {
  const store = openStore()
  await store.add('kept', 'key')
  for (let round = 0; round < 3; round += 1) {
    const keys = Array.from({ length: 4_000 }, (_, index) => `${round}-${index}`)
    await Promise.all(keys.map((key) => store.add(`d${key}`, key)))
    await Promise.all(keys.map((key) => store.remove(`d${key}`, key)))
  }
  await store.add('late', 'key')
  expect(lines().length).toBeLessThan(8_100)
  const again = await reopen(store)
  expect([await again.list('kept'), await again.list('late')]).toEqual([['key'], ['key']])
  expect(lines()).toHaveLength(3)
})

describe('one process per file', () => {
  it('a second store is refused while the first is open, in this process and in another', async () => {
    const store = openStore()
    expect(() => fileKeyStore(path)).toThrow('one process per file')
    const other = spawnNode(writer, { args: [path] })
    expect((await other.exited).code).not.toBe(0)
    expect(other.stderr.join('\n')).toContain(`process ${process.pid} has this store open`)
    await reopen(store)
  })

  it('a process that was killed in the middle of its writes leaves what it acknowledged, and its lock to the next', async () => {
    const child = spawnNode(writer, { args: [path] })
    await child.waitForLine(/^added 40$/, 30_000)
    await child.kill()
    const acknowledged = child.stdout.map((line) => line.replace('added ', ''))
    expect(existsSync(`${path}.lock`)).toBe(true)
    const store = openStore()
    const keys = await store.list('digest')
    expect(keys.slice(0, acknowledged.length)).toEqual(acknowledged)
  })

  it.runIf(process.platform === 'linux')('a lock of a process whose number somebody else has by now is no lock', () => {
    openStore()
    const text = readFileSync(`${path}.lock`, 'utf8')
    const other = join(folder, 'other')
    // This very process, but started at another time.
    writeFileSync(`${other}.lock`, text.replace(/\/(\d+)"/, '/1"'))
    const store = fileKeyStore(other)
    opened.push(store)
    writeFileSync(join(folder, 'same.lock'), text)
    expect(() => fileKeyStore(join(folder, 'same'))).toThrow('one process per file')
  })

  it('a lock that says nothing, or names a process that is gone, is taken over', async () => {
    const { pid } = spawnSync(process.execPath, ['-e', ''])
    for (const [name, text] of [
      ['empty', ''],
      ['odd', '{"pid":"x"}'],
      ['gone', JSON.stringify({ pid, started: null })],
    ] as const) {
      const file = join(folder, name)
      appendFileSync(`${file}.lock`, text)
      const store = fileKeyStore(file)
      await store.add('d', 'k')
      await store.close()
      expect(existsSync(`${file}.lock`)).toBe(false)
    }
  })
})
