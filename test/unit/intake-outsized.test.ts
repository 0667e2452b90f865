import fc from 'fast-check'
import { maxJsonDepth, maxJsonValues, measureJson, parseJson } from '@askonce/core'
import { loadConfig } from '@askonce/config'
import { decodeBody, Intake, IntakeError } from '@askonce/intake'
import { noDefaults } from '@askonce/store'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { splitBulk } from '../../apps/api/src/bulk-items.ts'
import { preferredWaitSeconds, prefersAsync } from '../../apps/api/src/prefer.ts'
import { anyJson, randomOf, spell } from './core-texts.ts'

// Threads start, and share two processors with all other tests.
vi.setConfig({ testTimeout: 60_000 })
const intake = new Intake(loadConfig({}), () => ({ reserveUsd: null, reserveTokens: null }))
afterAll(() => intake.close())

const submission = (input: string): Buffer =>
  Buffer.from(`{"operation":"embeddings","request":{"model":"simulated/x","input":${input}}}`)
const submit = (body: Buffer) => intake.submission({ tenantId: 'default', defaults: noDefaults, key: 'key', body })

/** Longest time in which the event loop did nothing else while this ran. */
async function held(run: () => Promise<unknown>): Promise<number> {
  let worst = 0
  let last = performance.now()
  const timer = setInterval(() => {
    worst = Math.max(worst, performance.now() - last)
    last = performance.now()
  }, 1)
  await run()
  await new Promise((resolve) => setTimeout(resolve, 5))
  clearInterval(timer)
  return worst
}

async function refusal(body: Buffer): Promise<[string, string]> {
  try {
    await submit(body)
  } catch (error) {
    if (error instanceof IntakeError) return [error.code, error.param]
    throw error
  }
  throw new Error('accepted')
}

function valuesIn(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 1
  return Object.values(value).reduce((sum: number, part) => sum + valuesIn(part), 1)
}

/** Fifty milliseconds, and what other tests on the same two processors take of them. What this is about took seconds. */
const noticeableMs = 300

describe('the measure of a text', () => {
  it('is never below the values and the depth that a parser finds, in text and in bytes', () => {
    fc.assert(
      fc.property(anyJson, fc.nat(), (value, seed) => {
        const { text } = spell(value, randomOf(seed))
        const measured = measureJson(text)
        expect(measured.values).toBeGreaterThanOrEqual(valuesIn(JSON.parse(text)))
        expect(measureJson(Buffer.from(text))).toEqual(measured)
      }),
    )
  })

  it('counts brackets outside strings only', () => {
    expect(measureJson('{"a[[[":"\\"[[,,","b":[[1]]}')).toEqual({ values: 5, depth: 3 })
  })
})

describe('a stored request', () => {
  it('of many megabytes is asked what it says of storing, and nobody waits for that', async () => {
    const numbers = `[${'1,'.repeat(900_000)}1]`
    const body = Buffer.from(`{"model":"m","store":true,"metadata":{"a":"b"},"x":${numbers}}`)
    const ask = (wanted: Record<string, string>): Promise<boolean> => intake.isStoredWith({ body, wanted })
    expect(await ask({ a: 'b' })).toBe(true)
    const longest = await held(async () => {
      expect(await Promise.all(Array.from({ length: 8 }, () => ask({ a: 'c' })))).not.toContain(true)
    })
    expect(longest).toBeLessThan(noticeableMs)
  })
})

describe('a body that holds too much', () => {
  it.each([
    ['ones', `[${'1,'.repeat(maxJsonValues)}1]`],
    ['ones with blanks', `[${'1, '.repeat(maxJsonValues)}1]`],
    ['empty objects', `[${'{},'.repeat(maxJsonValues)}{}]`],
  ])('is refused for its count: %s', async (_what, input) => {
    expect((await refusal(submission(input)))[0]).toBe('payload_too_large')
  })

  it.each([
    ['deep nesting', submission('['.repeat(1_000_000)), 'invalid_request'],
    [
      'many bad messages',
      Buffer.from(`{"operation":"chat.completions","request":{"model":"x","messages":[${'{},'.repeat(400_000)}{}]}}`),
      'invalid_request',
    ],
    [
      'many unknown members',
      Buffer.from(`{${Array.from({ length: 300_000 }, (_, index) => `"m${index}":1`).join(',')}}`),
      'invalid_request',
    ],
    ['bytes that are no UTF-8', Buffer.alloc(20_000_000, 0xff), 'invalid_request'],
  ])('is refused for what it is: %s', async (_what, body, code) => {
    expect((await refusal(body))[0]).toBe(code)
  })

  it('three hundred thousand tokens are accepted, and are what was sent', async () => {
    const body = submission(`[${'1234,'.repeat(299_999)}1]`)
    const { job } = await submit(body)
    expect(job.request.equals(body.subarray(body.indexOf('{"model"'), -1))).toBe(true)
    expect(Buffer.isBuffer(job.fingerprint)).toBe(true)
  })
})

it('a body becomes the same row in a thread as here', async () => {
  const padding = ' '.repeat(300_000)
  const body = submission('[1.0, "\\u00e9", 1e2], "more": 9007199254740993')
  const [here, there] = [await submit(body), await submit(Buffer.concat([body, Buffer.from(padding)]))]
  const { id: _here, ...first } = here.job
  const { id: _there, ...second } = there.job
  expect(second).toEqual(first)
  expect(await refusal(Buffer.from(`{"operation":"x"}${padding}`))).toEqual(
    await refusal(Buffer.from('{"operation":"x"}')),
  )
})

it('holds the event loop for less than what others would notice, whatever the size or shape', async () => {
  const bodies = [
    submission(`[${'1,'.repeat(5_000_000)}1]`),
    submission(`[${'1234, '.repeat(299_999)}1]`),
    submission(JSON.stringify('é"'.repeat(1_000_000))),
    submission(`[${'[1],'.repeat(240)}[1]]`),
    Buffer.from(
      `{"operation":"chat.completions","metadata":{${Array.from({ length: 900 }, (_, index) => `"m${index}":1`).join(',')}}}`,
    ),
  ]
  await submit(submission('"warm"'))
  for (const body of bodies) {
    // The processors are shared with other tests: the best of three tells what the body takes.
    const times: number[] = []
    for (let round = 0; round < 3; round += 1) times.push(await held(() => submit(body).catch(() => undefined)))
    expect(Math.min(...times)).toBeLessThan(noticeableMs)
  }
})

describe('a bulk body is cut', () => {
  const cut = async (text: string, isNdjson = false): Promise<string[]> =>
    (await splitBulk(Buffer.from(text), isNdjson)).map(String)

  it('into the elements of its list, byte for byte, however it is written', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyJson, { minLength: 1, maxLength: 20 }), fc.nat(), async (values, seed) => {
        const random = randomOf(seed)
        const items = values.map((value) => spell(value, random).text.trim())
        const text = ` { "jobs"\n: [ ${items.join(' ,\t')}\r\n] } `
        expect(await cut(text)).toEqual(items)
        for (const item of items) expect(parseJson(item)).toBeDefined()
      }),
    )
  })

  it.each([
    ['{"jobs":[1,2'],
    ['{"jobs":[1,]}'],
    ['{"jobs":[,1]}'],
    ['{"jobs":[1]} 2'],
    ['{"jobs":[1],"jobs":[2]}'],
    ['{"other":[1]}'],
    ['{"jobs":"[1]"}'],
    ['[{"jobs":[1]}]'],
    [`{"jobs":[${'['.repeat(maxJsonDepth + 10)}`],
    ['{"jobs":["a]}'],
    ['"'],
  ])('or refused as a whole: %s', async (text) => {
    await expect(cut(text)).rejects.toMatchObject({ code: 'invalid_request' })
    await expect(cut(`${text}${' '.repeat(2_000_000)}`)).rejects.toMatchObject({ code: 'invalid_request' })
  })

  it('of 32 MB of empty objects, or of empty lines, at once for its count, and in memory that nobody notices', async () => {
    const objects = Buffer.from(`{"jobs":[${'{},'.repeat(11_000_000)}{}]}`)
    const lines = Buffer.alloc(32 * 1024 * 1024, 0x0a)
    const before = process.memoryUsage().rss
    const worst = await held(async () => {
      await expect(splitBulk(objects, false)).rejects.toMatchObject({ code: 'invalid_request' })
      await expect(splitBulk(lines, true)).rejects.toMatchObject({ code: 'invalid_request' })
    })
    expect(worst).toBeLessThan(noticeableMs)
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * 1024 * 1024)
  })
})

describe('Prefer', () => {
  it.each([
    ['wait=5', 5],
    ['wait="5"', 5],
    ['respond-async, wait=7', 7],
    ['foo="a, wait=9; b", WAIT = 3; x=1', 3],
    ['foo="\\", wait=9", wait=1', 1],
    ['foo', null],
    ['', null],
  ])('is read: %s', (text, seconds) => {
    expect(preferredWaitSeconds([text])).toBe(seconds)
  })

  it('is read in the time of its length, whatever it holds', () => {
    const quotes = [
      '"'.repeat(15_000),
      '"a'.repeat(7_500),
      '"\\'.repeat(7_500),
      ' '.repeat(15_000),
      'a='.repeat(7_500),
      ','.repeat(15_000),
    ]
    for (const text of quotes) {
      const { user } = process.cpuUsage()
      expect(prefersAsync([text])).toBe(false)
      expect(preferredWaitSeconds([text])).toBeNull()
      expect((process.cpuUsage().user - user) / 1_000).toBeLessThan(100)
    }
  })
})

it('the first bad byte is found wherever it is', () => {
  fc.assert(
    fc.property(fc.nat(400_000), fc.constantFrom('é', '€', 'a', '😀', '\ufffd'), (at, character) => {
      const good = Buffer.from(character.repeat(Math.ceil((at + 1) / Buffer.byteLength(character))))
      const bytes = Buffer.concat([good, Buffer.from([0xff]), good])
      expect(() => decodeBody(bytes)).toThrow(`bad byte at offset ${good.length}.`)
    }),
    { numRuns: 30 },
  )
})
