// A batch by the stock OpenAI SDK. Kill it, kill the server, run it again: the same lines have the same keys, and only what is missing is asked.
//   OPENAI_BASE_URL=http://127.0.0.1:8787/openai/v1 OPENAI_API_KEY=<key> node --import tsx examples/batch-openai.ts [model]
import { setTimeout as sleep } from 'node:timers/promises'
import OpenAI, { toFile } from 'openai'

const openai = new OpenAI()
const model = process.argv[2] ?? 'simulated/small'
const count = 2_000

const lines = Array.from({ length: count }, (_, index) =>
  JSON.stringify({
    custom_id: `line-${index}`,
    method: 'POST',
    url: '/v1/chat/completions',
    body: { model, messages: [{ role: 'user', content: `Sum up document ${index}.` }] },
  }),
)
const file = await openai.files.create({
  purpose: 'batch',
  file: await toFile(Buffer.from(lines.join('\n')), 'documents.jsonl'),
})
let batch = await openai.batches.create({
  input_file_id: file.id,
  endpoint: '/v1/chat/completions',
  completion_window: '24h',
})
while (batch.status === 'validating' || batch.status === 'in_progress' || batch.status === 'finalizing') {
  await sleep(1_000)
  batch = await openai.batches.retrieve(batch.id)
  const { completed = 0, failed = 0 } = batch.request_counts ?? {}
  // What the SDK's types do not know: how many of them had their answers already.
  const { replayed } = (batch as unknown as { askonce: { replayed: number } }).askonce
  console.log(`${batch.status}: ${completed} of ${count}, ${failed} failed, ${replayed} replayed`)
}
const output = await (await openai.files.content(batch.output_file_id ?? '')).text()
console.log(`${output.trimEnd().split('\n').length} lines of output`)
