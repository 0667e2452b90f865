import type * as Files from 'node:fs/promises'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { AttemptEndRecord } from '@askonce/store'
import { createMetrics, type Log } from '@askonce/telemetry'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { AnswerInHand } from '../../apps/worker/src/answer-in-hand.ts'
import { BackPressure } from '../../apps/worker/src/back-pressure.ts'
import { Safekeeping } from '../../apps/worker/src/safekeeping.ts'
import { Spool } from '../../apps/worker/src/spool.ts'

// DESIGN.md §4: an answer that the spool cannot take stays in memory, the process says so and makes no more of them, and it is written once
// there is room. Errors that a test cannot have from a real file system without being root are thrown where spool.ts meets it.
// Not covered: a file system that takes the bytes, says nothing, and loses them.

type Step = 'mkdir' | 'open' | 'write' | 'sync' | 'rename'

const disk = vi.hoisted(() => ({ fault: null as { step: Step; code: string } | null, failures: 0 }))

vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof Files>()
  const meet = (step: Step): void => {
    if (disk.fault?.step !== step) return
    disk.failures += 1
    throw Object.assign(new Error(`${disk.fault.code}: as if`), { code: disk.fault.code })
  }
  return {
    ...real,
    mkdir: async (...args: Parameters<typeof real.mkdir>) => {
      meet('mkdir')
      return real.mkdir(...args)
    },
    rename: async (...args: Parameters<typeof real.rename>) => {
      meet('rename')
      return real.rename(...args)
    },
    open: async (...args: Parameters<typeof real.open>) => {
      // Records and probes; directories are opened to be synced, too.
      const isNew = args[1] === 'wx'
      if (isNew) meet('open')
      const file = await real.open(...args)
      if (!isNew) return file
      const { writeFile, sync } = file
      file.writeFile = async (data: Buffer) => {
        // A full disk takes what it has room for.
        if (disk.fault?.step === 'write') await file.write(data.subarray(0, data.length / 2))
        meet('write')
        return writeFile.call(file, data)
      }
      file.sync = async () => {
        meet('sync')
        return sync.call(file)
      }
      return file
    },
  }
})

const end: AttemptEndRecord = {
  jobId: '0199c0de-0000-7000-8000-000000000001',
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
  providerRequestId: null,
  inputTokens: 3,
  outputTokens: 5,
  costUsd: null,
  response: Buffer.from('{"paid":true}'),
  responsePieces: null,
  responseBytes: null,
  contentType: 'application/json',
  answerId: null,
  errorResponse: null,
  errorContentType: null,
  flags: [],
}

let parent: string
beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), 'askonce-spool-faults-'))
})
afterEach(async () => {
  disk.fault = null
  await rm(parent, { recursive: true, force: true })
})

const words: Record<string, string> = {
  ENOSPC: 'the disk is full (ENOSPC)',
  EROFS: 'it is on a read-only file system (EROFS)',
  EACCES: 'this user may not write there (EACCES)',
}

const cases: [code: string, step: Step][] = [
  ['ENOSPC', 'mkdir'],
  ['ENOSPC', 'open'],
  ['ENOSPC', 'write'],
  ['ENOSPC', 'sync'],
  ['ENOSPC', 'rename'],
  ['EROFS', 'mkdir'],
  ['EROFS', 'open'],
  // Mounted read-only in the middle, as after an error of the disk.
  ['EROFS', 'rename'],
  ['EACCES', 'mkdir'],
  ['EACCES', 'open'],
  ['EACCES', 'rename'],
]

test.each(cases)(
  '%s at %s: the answer stays in memory, that is said, and it is written when it can be',
  async (code, step) => {
    const spool = new Spool(join(parent, 'spool'))
    const metrics = createMetrics()
    const figures = async (): Promise<Record<string, string | undefined>> => {
      const { text } = await metrics.render()
      const names = ['spool_writable', 'spool_files', 'claims_held_back', 'unstored_answers{where="memory"}']
      return Object.fromEntries(
        names.map((name) => [
          name,
          text
            .split('\n')
            .find((line) => line.startsWith(`askonce_${name} `))
            ?.split(' ')[1],
        ]),
      )
    }
    const well = {
      spool_writable: '1',
      spool_files: '0',
      claims_held_back: '0',
      'unstored_answers{where="memory"}': '0',
    }
    let tell: (reason: string) => void = () => undefined
    const told = new Promise<string>((resolve) => (tell = resolve))
    const log: Log = {
      event: (name, fields) => {
        if (name === 'spool.unavailable') tell(String(fields?.['reason']))
      },
      child: () => log,
    }
    const backPressure = new BackPressure(log, metrics, () => undefined)
    const databaseId = (): Promise<string> => Promise.resolve('db-1')
    const safekeeping = new Safekeeping({ spool, log, metrics, backPressure, databaseId })
    expect(await figures()).toEqual(well)

    disk.fault = { step, code }
    disk.failures = 0
    const answer = new AnswerInHand('acme', end)
    safekeeping.keep(answer, 'Postgres is away')
    expect(await told).toContain(words[code])
    expect(disk.failures).toBeGreaterThan(0)
    expect(safekeeping.trouble).toContain(`${spool.directory} cannot be written: ${words[code]}`)
    expect(backPressure.heldBack).toContain('1 paid answers are in memory only')
    expect([answer.file, answer.end.response, safekeeping.unsafe]).toEqual([null, end.response, [answer]])
    const trouble = { ...well, spool_writable: '0', claims_held_back: '1', 'unstored_answers{where="memory"}': '1' }
    expect(await figures()).toEqual(trouble)

    disk.fault = null
    await answer.keeping
    expect((await spool.read(answer.file ?? '')).end.response).toEqual(end.response)
    // What the failed attempts had begun was taken away again.
    expect(await readdir(spool.directory)).toHaveLength(1)
    expect([safekeeping.trouble, backPressure.heldBack, safekeeping.unsafe]).toEqual([null, null, []])
    expect(await figures()).toEqual({ ...well, spool_files: '1' })
  },
)

test.each(Object.keys(words))('%s at a look, before anything has to be kept: told at once', async (code) => {
  const spool = new Spool(join(parent, 'spool'))
  const log: Log = { event: () => undefined, child: () => log }
  const metrics = createMetrics()
  const backPressure = new BackPressure(log, metrics, () => undefined)
  const safekeeping = new Safekeeping({ spool, log, metrics, backPressure, databaseId: () => Promise.resolve('db-1') })
  disk.fault = { step: 'open', code }
  await safekeeping.check()
  expect(safekeeping.trouble).toContain(words[code])
  // Nothing is in memory only, so calls may go on.
  expect(backPressure.heldBack).toBeNull()
  disk.fault = null
  await safekeeping.check()
  expect(safekeeping.trouble).toBeNull()
})
