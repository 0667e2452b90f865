import { createHash, randomBytes } from 'node:crypto'
import { connect } from 'node:net'
import fc from 'fast-check'
import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, startHarness, type Harness } from '../api/harness.ts'

let harness: Harness
let openai: OpenAI

beforeAll(async () => {
  harness = await startHarness({ env: { ASKONCE_MAX_FILE_BYTES: '5000000' } })
  openai = new OpenAI({ apiKey: bootstrapKey, baseURL: `${harness.api.address}/openai/v1`, maxRetries: 0 })
})
afterAll(() => harness.stop())

const count = async (table: string): Promise<unknown> =>
  (await harness.sql(`select count(*)::int as n from ${table}`))[0]?.['n']

/** A body of a form, by hand. */
function form(boundary: string, ...parts: [head: string, content: string | Buffer][]): Buffer {
  const pieces = parts.flatMap(([head, content]) => [
    Buffer.from(`--${boundary}\r\n${head}\r\n\r\n`),
    Buffer.from(content),
    Buffer.from('\r\n'),
  ])
  return Buffer.concat([...pieces, Buffer.from(`--${boundary}--\r\n`)])
}

const filePart =
  'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\nContent-Type: application/octet-stream'
const purposePart = 'Content-Disposition: form-data; name="purpose"'

const post = (body: Buffer, contentType = 'multipart/form-data; boundary=b') =>
  harness.call('POST', '/openai/v1/files', { body, headers: { 'content-type': contentType } })

describe('files of the OpenAI SDK', () => {
  it('are kept byte for byte, read back, listed and deleted', async () => {
    // Over several pieces, and not a multiple of them.
    const content = randomBytes(2_500_123)
    const created = await openai.files.create({
      file: await toFile(content, 'päper "1".bin'),
      purpose: 'batch',
      expires_after: { anchor: 'created_at', seconds: 3_600 },
    })
    expect(created).toMatchObject({ object: 'file', bytes: content.length, purpose: 'batch', status: 'processed' })
    expect(created.id).toMatch(/^file-[0-9a-f]{32}$/)
    expect(created.expires_at).toBe(created.created_at + 3_600)
    expect(await openai.files.retrieve(created.id)).toEqual(created)
    const read = Buffer.from(await (await openai.files.content(created.id)).arrayBuffer())
    expect(read.equals(content)).toBe(true)
    const [row] = await harness.sql(`select encode(sha256, 'hex') as sha256 from files`)
    expect(row?.['sha256']).toBe(createHash('sha256').update(content).digest('hex'))
    expect(await openai.files.delete(created.id)).toEqual({ id: created.id, object: 'file', deleted: true })
    await expect(openai.files.retrieve(created.id)).rejects.toBeInstanceOf(OpenAI.NotFoundError)
    await expect(openai.files.delete(created.id)).rejects.toBeInstanceOf(OpenAI.NotFoundError)
    expect(await count('file_parts')).toBe(0)
  })

  it.each([
    ['bytes=0-0', 206, 0, 1],
    ['bytes=1048570-1048585', 206, 1_048_570, 1_048_586],
    ['bytes=1500000-', 206, 1_500_000, 1_500_001],
    ['bytes=-3', 206, 1_499_998, 1_500_001],
    ['bytes=-9999999', 206, 0, 1_500_001],
    ['bytes=5-99999999', 206, 5, 1_500_001],
    ['bytes=9-5', 200, 0, 1_500_001],
    ['bytes=0-1,5-6', 200, 0, 1_500_001],
    ['lines=1-2', 200, 0, 1_500_001],
  ])('answer the range %s', async (range, status, from, to) => {
    const content = Buffer.alloc(1_500_001, 'abcdefghijklmnopqrstuvwxyz')
    const { id } = await openai.files.create({ file: await toFile(content, 'x'), purpose: 'batch' })
    const response = await fetch(`${harness.api.address}/openai/v1/files/${id}/content`, {
      headers: { authorization: `Bearer ${bootstrapKey}`, range },
    })
    expect(response.status).toBe(status)
    const part = Buffer.from(await response.arrayBuffer())
    expect(part.equals(content.subarray(from, to))).toBe(true)
    expect(response.headers.get('content-range')).toBe(
      status === 206 ? `bytes ${from}-${to - 1}/${content.length}` : null,
    )
    await openai.files.delete(id)
  })

  it('answer a range behind their end with 416', async () => {
    const { id } = await openai.files.create({ file: await toFile(Buffer.from('abc'), 'x'), purpose: 'batch' })
    const reply = await harness.call('GET', `/openai/v1/files/${id}/content`, { headers: { range: 'bytes=3-' } })
    expect(reply.status).toBe(416)
    expect(reply.headers.get('content-range')).toBe('bytes */3')
    expect(reply.json['code']).toBe('range_not_satisfiable')
    await openai.files.delete(id)
  })

  it('are gone when their time is over, swept or not', async () => {
    const { id } = await openai.files.create({ file: await toFile(Buffer.from('abc'), 'x'), purpose: 'batch' })
    await harness.sql('update files set expires_at = now()')
    await expect(openai.files.content(id)).rejects.toBeInstanceOf(OpenAI.NotFoundError)
    expect((await openai.files.list()).data).toEqual([])
    await harness.sql('delete from files')
    await harness.sql('delete from file_parts')
  })

  it('take purpose before or behind the file', async () => {
    for (const parts of [
      [
        [filePart, 'one'],
        [purposePart, 'batch'],
      ],
      [
        [purposePart, 'batch'],
        [filePart, 'one'],
      ],
    ] as [string, string][][]) {
      const reply = await post(form('b', ...parts))
      expect(reply.status).toBe(200)
      expect(reply.json).toMatchObject({ filename: 'a.jsonl', bytes: 3, purpose: 'batch' })
      await openai.files.delete(reply.json.id)
    }
  })
})

describe('an upload that is no good', () => {
  const good: [string, string][] = [
    [filePart, 'content'],
    [purposePart, 'batch'],
  ]
  const cases: [name: string, status: number, body: () => Buffer, contentType?: string][] = [
    ['without a boundary', 400, () => form('b', ...good), 'multipart/form-data'],
    ['with another boundary', 400, () => form('b', ...good), 'multipart/form-data; boundary=other'],
    ['of another type', 415, () => form('b', ...good), 'application/json'],
    ['without a body', 400, () => Buffer.alloc(0)],
    ['that breaks off in the file', 400, () => form('b', ...good).subarray(0, 130)],
    ['that breaks off before its last boundary', 400, () => form('b', ...good).subarray(0, -8)],
    ['without a file', 400, () => form('b', [purposePart, 'batch'])],
    ['without a purpose', 400, () => form('b', [filePart, 'x'])],
    ['with a purpose that we do not know', 400, () => form('b', [filePart, 'x'], [purposePart, 'fun'])],
    ['with two files', 400, () => form('b', [filePart, 'x'], ...good)],
    ['with a purpose twice', 400, () => form('b', ...good, [purposePart, 'batch'])],
    ['with an unknown field', 400, () => form('b', ...good, ['Content-Disposition: form-data; name="x"', '1'])],
    [
      'with a field of a megabyte',
      400,
      () => form('b', ...good, ['Content-Disposition: form-data; name="y"', 'x'.repeat(1_000_000)]),
    ],
    [
      'with a time that is none',
      400,
      () =>
        form(
          'b',
          ...good,
          ['Content-Disposition: form-data; name="expires_after[anchor]"', 'created_at'],
          ['Content-Disposition: form-data; name="expires_after[seconds]"', '1e5'],
        ),
    ],
  ]

  it.each(cases)('%s: a clear answer, and nothing is left', async (_, status, body, contentType) => {
    const reply = await post(body(), contentType)
    expect(reply.status).toBe(status)
    expect(reply.json['code']).toBe(status === 415 ? 'unsupported_media_type' : 'invalid_request')
    expect([await count('files'), await count('file_parts')]).toEqual([0, 0])
  })

  it('whose client goes away leaves nothing', async () => {
    const { hostname, port } = new URL(harness.api.address)
    const socket = connect(Number(port), hostname)
    socket.on('error', () => undefined)
    const body = form('b', [filePart, randomBytes(3_000_000)])
    socket.write(
      `POST /openai/v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${bootstrapKey}\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 9999999\r\n\r\n`,
    )
    socket.write(body.subarray(0, -1_000))
    await expect.poll(() => count('file_parts'), { timeout: 10_000 }).toBe(2)
    expect((await openai.files.list()).data).toEqual([])
    socket.destroy()
    await expect.poll(() => count('files'), { timeout: 10_000 }).toBe(0)
    expect(await count('file_parts')).toBe(0)
  })

  it('that is too large is refused while it arrives', async () => {
    const piece = Buffer.alloc(1024 * 1024, 0x61)
    async function* body(): AsyncGenerator<Buffer> {
      yield Buffer.from(`--b\r\n${filePart}\r\n\r\n`)
      for (let index = 0; index < 40; index += 1) yield piece
      yield Buffer.from('\r\n--b--\r\n')
    }
    const response = await fetch(`${harness.api.address}/openai/v1/files`, {
      method: 'POST',
      headers: { authorization: `Bearer ${bootstrapKey}`, 'content-type': 'multipart/form-data; boundary=b' },
      body: body(),
      duplex: 'half',
    })
    expect(response.status).toBe(413)
    expect([await count('files'), await count('file_parts')]).toEqual([0, 0])
  })

  it('of any bytes and any type: never a 5xx, nothing left', async () => {
    const words = [
      '--b',
      '--b--',
      '\r\n',
      '\n',
      filePart,
      purposePart,
      'batch',
      '\r\n\r\n',
      'Content-Disposition: form-data',
      '\0',
      'é',
    ]
    const types = [
      'multipart/form-data; boundary=b',
      'multipart/form-data; boundary="b"',
      'multipart/form-data; boundary=',
      'multipart/form-data;;',
    ]
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.constantFrom(...words), fc.string()), { maxLength: 30 }),
        fc.constantFrom(...types),
        async (pieces, type) => {
          const reply = await post(Buffer.from(pieces.join('')), type)
          expect(reply.status).toBeLessThan(500)
          if (reply.status === 200) await openai.files.delete(reply.json.id)
          expect([await count('files'), await count('file_parts')]).toEqual([0, 0])
        },
      ),
      { numRuns: 40 },
    )
  })
})
