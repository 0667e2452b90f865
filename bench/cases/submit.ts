import { nameOf, nothingDue, withAskonce, type Form } from '../askonce.ts'
import type { Bench } from '../bench.ts'
import type { Case, Contender } from '../case.ts'
import { startFastify, takeSample } from '../fastify.ts'
import { apiKey, submissionOf } from '../load/spec.ts'
import { cleanLoad } from '../load.ts'
import { peerRate, peerTitles } from '../peer.ts'
import { peerNames, type PeerName } from '../peers/peer.ts'
import { cpuFigures, withCpu } from '../usage.ts'

const connections = 128
/** Of peers, which are called in the process that submits. */
const concurrency = 100

const times = (bench: Bench) => ({ warmUpMs: bench.pick(3_000, 300), durationMs: bench.pick(3_000, 700) })

function askonce(bench: Bench, form: Form, later?: typeof nothingDue): Contender {
  return {
    name: later?.name ?? nameOf[form],
    measure: () =>
      withAskonce(bench, form, async (system) => {
        const address = await system.api()
        const prefix = bench.fresh('submit')
        return await withCpu(bench, system.processes(), async () => {
          const delay = later === undefined ? {} : { delaySeconds: later.delaySeconds }
          const request = { kind: 'submit', prefix, ...delay } as const
          const result = await cleanLoad(bench, address, { connections, ...times(bench), request })
          const stored = await system.count('queued')
          if (stored !== result.accepted) throw new Error(`${result.accepted} were accepted and ${stored} are stored`)
          const measured = { rate: result.perSecond, p99: result.p99, generator: result.cpuShare * 100 }
          return { measured, units: result.accepted }
        })
      }),
  }
}

function peer(bench: Bench, name: PeerName): Contender {
  return {
    name: peerTitles[name],
    async measure() {
      const task = { kind: 'submit', prefix: bench.fresh('submit'), concurrency, ...times(bench) } as const
      return { rate: await peerRate(bench, name, task) }
    },
  }
}

export const submit: Case = {
  name: 'submit',
  title: 'Durable keyed submissions a second: one API, 128 connections, new keys',
  figures: [
    { name: 'rate', unit: 'jobs/s' },
    { name: 'p99', unit: 'ms' },
    { name: 'generator', unit: '% of a core' },
    ...cpuFigures,
  ],
  targets: [
    { figure: 'rate', of: 'Askonce', against: 'pg-boss', bound: 'at least', factor: 3.7 },
    { figure: 'rate', of: 'Askonce', against: 'graphile-worker', bound: 'at least', factor: 10 },
    { figure: 'rate', of: 'Askonce', against: 'DBOS', bound: 'at least', factor: 10 },
    { figure: 'rate', of: 'Askonce', against: 'Fastify', bound: 'at least', factor: 0.26 },
    { figure: 'rate', of: 'Askonce without Redis', against: 'pg-boss', bound: 'at least', factor: 3.3 },
  ],
  async open(bench) {
    const sample = await withAskonce(bench, 'redis', async (system) =>
      takeSample(`${await system.api()}/v1/jobs`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'idempotency-key': 'sample', authorization: `Bearer ${apiKey}` },
        body: JSON.stringify(submissionOf('sample', 0)),
      }),
    )
    const server = await startFastify(bench, sample)
    const floor: Contender = {
      name: 'Fastify',
      async measure() {
        const request = { kind: 'submit', prefix: bench.fresh('submit') } as const
        const result = await cleanLoad(bench, server.address, { connections, ...times(bench), request })
        return { rate: result.perSecond, p99: result.p99, generator: result.cpuShare * 100 }
      },
    }
    const peers = peerNames.map((name) => peer(bench, name))
    return {
      contenders: [
        askonce(bench, 'redis'),
        askonce(bench, 'embedded'),
        askonce(bench, 'redis', nothingDue),
        ...peers,
        floor,
      ],
      close: () => server.stop(),
    }
  },
}
