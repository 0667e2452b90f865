import { createHash, randomBytes } from 'node:crypto'
import { openAsBlob } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { apiKey, startSystem, until } from '../test/fault/system.ts'

// How long a large batch takes to be accepted and validated, what the API's memory does meanwhile, and when the first result can be
// read. Processes of their own over loopback; the counting upstream answers at once.
//   npm run measure:batch -- [lines] [bytes of each prompt] [json.dumps] [validation] [messages]

const [lineCount = 50_000, promptBytes = 1_000] = process.argv
  .slice(2)
  .map(Number)
  .filter((value) => !Number.isNaN(value))
/** Blanks behind commas and colons, as Python writes JSON: the exact parser takes its long way. */
const python = process.argv.includes('json.dumps')
/** Ends with the first result. */
const validationOnly = process.argv.includes('validation')
/** As Anthropic's SDK sends a batch: one body with all requests, which is answered when it has been checked and stored. */
const messages = process.argv.includes('messages')

async function writeInput(path: string): Promise<number> {
  const file = await open(path, 'w')
  let bytes = 0
  for (let index = 0; index < lineCount; index += 1) {
    const content = createHash('sha256')
      .update(String(index))
      .digest('hex')
      .repeat(Math.ceil(promptBytes / 64))
      .slice(0, promptBytes)
    const asked = {
      model: messages ? 'claude-test' : 'gpt-test',
      messages: [{ role: 'user', content }],
      max_tokens: 100,
    }
    const line = JSON.stringify(
      messages
        ? { custom_id: `request-${index}`, params: asked }
        : { custom_id: `request-${index}`, method: 'POST', url: '/v1/chat/completions', body: asked },
    )
    const text = python ? line.replaceAll('":', '": ').replaceAll(',"', ', "') : line
    const whole = messages ? `${index === 0 ? '{"requests":[' : ','}${text}` : `${text}\n`
    bytes += Buffer.byteLength(whole)
    await file.write(whole)
  }
  if (messages) await file.write(']}')
  await file.close()
  return bytes
}

const seconds = (from: number, to: number): string => `${((to - from) / 1000).toFixed(2)} s`
const megabytes = (value: number): string => `${(value / 1024 / 1024).toFixed(1)} MB`

const system = await startSystem('redis')
try {
  const { child, address } = await system.api()
  await system.started('worker', { ASKONCE_CONCURRENCY: '50' })
  await system.started('janitor')
  const path = join(system.directory, 'input.jsonl')
  const bytes = await writeInput(path)
  const headers = { authorization: `Bearer ${apiKey}` }
  const get = async <T>(url: string): Promise<T> => (await (await fetch(address + url, { headers })).json()) as T
  const rss = async (): Promise<number> => {
    const text = await (await fetch(`${address}/metrics`)).text()
    return Number(/^process_resident_memory_bytes (\S+)/m.exec(text)?.[1] ?? 0)
  }
  // A first small upload, so that what is loaded once is loaded.
  const upload = async (blob: Blob): Promise<string> => {
    const form = new FormData()
    form.set('purpose', 'batch')
    form.set('file', blob, 'input.jsonl')
    const reply = await fetch(`${address}/openai/v1/files`, { method: 'POST', headers, body: form })
    return ((await reply.json()) as { id: string }).id
  }
  await upload(new Blob([randomBytes(2_000_000)]))
  const before = await rss()
  let peak = before
  const watch = setInterval(() => void rss().then((now) => (peak = Math.max(peak, now))), 200)

  const send = async (url: string, body: string | Blob): Promise<{ id: string }> => {
    const jsonHeaders = { ...headers, 'x-api-key': apiKey, 'content-type': 'application/json' }
    const reply = await fetch(address + url, { method: 'POST', headers: jsonHeaders, body })
    if (!reply.ok) throw new Error(await reply.text())
    return (await reply.json()) as { id: string }
  }
  const startedAt = performance.now()
  const source = await openAsBlob(path)
  const inputFileId = messages ? null : await upload(source)
  const uploadedAt = performance.now()
  const { id } = await (messages
    ? send('/anthropic/v1/messages/batches', source)
    : send(
        '/openai/v1/batches',
        JSON.stringify({ input_file_id: inputFileId, endpoint: '/v1/chat/completions', completion_window: '24h' }),
      ))
  // Both kinds in the words of one of them.
  const read = async (): Promise<{ status: string; completed: number }> => {
    if (!messages) {
      const batch = await get<{ status: string; errors: unknown; request_counts: { completed: number } }>(
        `/openai/v1/batches/${id}`,
      )
      if (batch.status === 'failed') throw new Error(JSON.stringify(batch.errors))
      return { status: batch.status, completed: batch.request_counts.completed }
    }
    const batch = await get<{ processing_status: string; request_counts: { succeeded: number } }>(
      `/anthropic/v1/messages/batches/${id}`,
    )
    const status = batch.processing_status === 'ended' ? 'completed' : batch.processing_status
    return { status, completed: batch.request_counts.succeeded }
  }
  await until(read, ({ status }) => status !== 'validating', 120_000)
  const validatedAt = performance.now()
  const results = async (): Promise<number> =>
    messages ? (await read()).completed : (await get<{ data: unknown[] }>(`/openai/v1/batches/${id}/lines`)).data.length
  await until(results, (count) => count > 0, 60_000)
  const firstAt = performance.now()
  if (!validationOnly) await until(read, ({ status }) => status === 'completed', 1_800_000)
  const completedAt = performance.now()
  clearInterval(watch)

  process.stdout.write(
    `${[
      `${lineCount} lines, ${megabytes(bytes)}${python ? ', as json.dumps writes them' : ''}`,
      ...(messages ? [] : [`uploaded               ${seconds(startedAt, uploadedAt)}`]),
      `accepted and validated ${seconds(startedAt, validatedAt)}`,
      `first result           ${seconds(validatedAt, firstAt)} after in_progress`,
      ...(validationOnly ? [] : [`completed              ${seconds(validatedAt, completedAt)} after in_progress`]),
      `API memory             ${megabytes(before)} before, peak ${megabytes(peak)}, growth ${megabytes(peak - before)}`,
      `calls                  ${await system.upstream.calls()}`,
    ].join('\n')}\n`,
  )
  await child.kill()
} finally {
  await system.stop()
}
