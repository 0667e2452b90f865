import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'
import { startUpstream } from '@askonce/testkit'

const ask = (url: string, body: object): Promise<Response> =>
  fetch(`${url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(body) })

test('steps are used in order, as often as they say, for the requests that fit', async () => {
  const upstream = await startUpstream()
  upstream.script([
    { kind: 'refuse', status: 503, times: 2, match: { marker: 'a' } },
    { kind: 'refuse', status: 500, match: { model: 'm' } },
  ])
  const statuses: number[] = []
  for (const user of ['b', 'a', 'a', 'a', 'b']) statuses.push((await ask(upstream.url, { model: 'm', user })).status)
  expect(statuses).toEqual([500, 503, 503, 200, 200])
  expect([upstream.arrivals(), upstream.calls(), [...upstream.callsBy()]]).toEqual([
    5,
    2,
    [
      ['a', 1],
      ['b', 1],
    ],
  ])
  await expect(upstream.waitForCalls(3, 10)).rejects.toThrow('calls: 2 of 3 within 10 ms')
  await upstream.close()
})

test('a process of its own counts, and is told what to do', async () => {
  const child = spawn(process.execPath, ['--import', 'tsx', 'packages/testkit/src/upstream-main.ts'])
  onTestFinished(() => void child.kill('SIGKILL'))
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
  const { url } = JSON.parse(line) as { url: string }
  const script = JSON.stringify([{ kind: 'refuse', status: 429, match: { marker: 'k' } }])
  await fetch(`${url}/__script`, { method: 'POST', body: script })
  expect((await ask(url, { model: 'm', user: 'k' })).status).toBe(429)
  expect((await ask(url, { model: 'm', user: 'k' })).status).toBe(200)
  const counts = (await (await fetch(`${url}/__calls`)).json()) as object
  expect(counts).toMatchObject({ calls: 1, arrivals: 2, look_ups: 0, in_flight: 0, by_marker: { k: 1 } })
  expect(counts).toHaveProperty('last.json', { model: 'm', user: 'k' })
  child.kill('SIGTERM')
  expect(await once(child, 'exit')).toEqual([0, null])
})
