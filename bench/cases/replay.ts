import type { Bench } from '../bench.ts'
import type { Case, Contender } from '../case.ts'
import { startFastify, takeSample, type Floor } from '../fastify.ts'
import { submissionOf, type LoadRequest } from '../load/spec.ts'
import { cleanLoad } from '../load.ts'
import { startWithAnswers } from '../succeeded.ts'
import { cpuFigures, withCpu } from '../usage.ts'

const connections = 128

/** `processes`: of the one that is asked. */
function contender(
  bench: Bench,
  name: string,
  { address, processes }: Pick<Floor, 'address' | 'processes'>,
  request: LoadRequest,
): Contender {
  return {
    name,
    measure: () =>
      withCpu(bench, processes, async () => {
        const times = { warmUpMs: bench.pick(3_000, 300), durationMs: bench.pick(3_000, 700) }
        const result = await cleanLoad(bench, address, { connections, ...times, request })
        const measured = { rate: result.perSecond, p99: result.p99, generator: result.cpuShare * 100 }
        return { measured, units: result.accepted }
      }),
  }
}

const figures = [
  { name: 'rate', unit: 'requests/s' },
  { name: 'p99', unit: 'ms' },
  { name: 'generator', unit: '% of a core' },
  ...cpuFigures,
]

export const replay: Case = {
  name: 'replay',
  title: 'POSTs a second of keys that have their answers, 128 connections',
  figures,
  targets: [{ figure: 'rate', of: 'Askonce', against: 'Fastify', bound: 'at least', factor: 0.42 }],
  async open(bench) {
    const own = await startWithAnswers(bench, bench.pick(2_000, 200))
    const { prefix, count } = own
    const sample = await takeSample(`${own.address}/v1/jobs`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': `${prefix}-0` },
      body: JSON.stringify(submissionOf(prefix, 0)),
    })
    const floor = await startFastify(bench, sample)
    const request = { kind: 'replay', prefix, count } as const
    return {
      contenders: [contender(bench, 'Askonce', own, request), contender(bench, 'Fastify', floor, request)],
      async close() {
        await floor.stop()
        await own.system.stop()
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
    { figure: 'rate', of: 'Askonce, job', against: 'Fastify, job', bound: 'at least', factor: 0.42 },
  ],
  async open(bench) {
    const own = await startWithAnswers(bench, bench.pick(2_000, 200))
    const { address, ids } = own
    const answers = ids.map((id) => `/v1/jobs/${id}/response`)
    const jobs = ids.map((id) => `/v1/jobs/${id}`)
    const answer = await startFastify(bench, await takeSample(`${address}${answers[0]}`))
    const job = await startFastify(bench, await takeSample(`${address}${jobs[0]}`))
    return {
      contenders: [
        contender(bench, 'Askonce, answer', own, { kind: 'get', paths: answers }),
        contender(bench, 'Fastify, answer', answer, { kind: 'get', paths: answers }),
        contender(bench, 'Askonce, job', own, { kind: 'get', paths: jobs }),
        contender(bench, 'Fastify, job', job, { kind: 'get', paths: jobs }),
      ],
      async close() {
        await answer.stop()
        await job.stop()
        await own.system.stop()
      },
    }
  },
}
