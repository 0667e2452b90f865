import type { Bench } from '../bench.ts'
import type { Case, Contender } from '../case.ts'
import { startFastify, takeSample } from '../fastify.ts'
import { submissionOf, type LoadRequest } from '../load/spec.ts'
import { cleanLoad } from '../load.ts'
import { startWithAnswers } from '../succeeded.ts'

const connections = 128

function contender(bench: Bench, name: string, address: string, request: LoadRequest): Contender {
  return {
    name,
    async measure() {
      const times = { warmUpMs: bench.pick(3_000, 300), durationMs: bench.pick(3_000, 700) }
      const result = await cleanLoad(bench, address, { connections, ...times, request })
      return { rate: result.perSecond, p99: result.p99, generator: result.cpuShare * 100 }
    },
  }
}

const figures = [
  { name: 'rate', unit: 'requests/s' },
  { name: 'p99', unit: 'ms' },
  { name: 'generator', unit: '% of a core' },
]

export const replay: Case = {
  name: 'replay',
  title: 'POSTs a second of keys that have their answers, 128 connections',
  figures,
  targets: [{ figure: 'rate', of: 'Askonce', against: 'Fastify', bound: 'at least', factor: 0.4 }],
  async open(bench) {
    const { system, address, prefix, count } = await startWithAnswers(bench, bench.pick(2_000, 200))
    const sample = await takeSample(`${address}/v1/jobs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': `${prefix}-0` },
      body: JSON.stringify(submissionOf(prefix, 0)),
    })
    const floor = await startFastify(bench, sample)
    const request = { kind: 'replay', prefix, count } as const
    return {
      contenders: [contender(bench, 'Askonce', address, request), contender(bench, 'Fastify', floor.address, request)],
      async close() {
        await floor.child.kill()
        await system.stop()
      },
    }
  },
}

export const read: Case = {
  name: 'read',
  title: 'Stored answers, and jobs, read a second by their ids, 128 connections',
  figures,
  targets: [
    { figure: 'rate', of: 'Askonce, answer', against: 'Fastify, answer', bound: 'at least', factor: 0.4 },
    { figure: 'rate', of: 'Askonce, job', against: 'Fastify, job', bound: 'at least', factor: 0.4 },
  ],
  async open(bench) {
    const { system, address, ids } = await startWithAnswers(bench, bench.pick(2_000, 200))
    const answers = ids.map((id) => `/v1/jobs/${id}/response`)
    const jobs = ids.map((id) => `/v1/jobs/${id}`)
    const answer = await startFastify(bench, await takeSample(`${address}${answers[0]}`))
    const job = await startFastify(bench, await takeSample(`${address}${jobs[0]}`))
    return {
      contenders: [
        contender(bench, 'Askonce, answer', address, { kind: 'get', paths: answers }),
        contender(bench, 'Fastify, answer', answer.address, { kind: 'get', paths: answers }),
        contender(bench, 'Askonce, job', address, { kind: 'get', paths: jobs }),
        contender(bench, 'Fastify, job', job.address, { kind: 'get', paths: jobs }),
      ],
      async close() {
        await answer.child.kill()
        await job.child.kill()
        await system.stop()
      },
    }
  },
}
