import { readFileSync } from 'node:fs'
import { fastify } from 'fastify'

/** An answer of Askonce. */
export interface Sample {
  status: number
  headers: Record<string, string>
  body: string
}

/**
 * A bare Fastify: the floor of HTTP. It parses JSON bodies and answers every request with the {@link Sample} in the file that
 * its argument names; it stores nothing and logs nothing.
 */
const sample = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as Sample
const body = Buffer.from(sample.body)
const server = fastify()
server.all('/*', (_, reply) => {
  void reply.code(sample.status).headers(sample.headers).send(body)
})
const address = await server.listen({ host: '127.0.0.1', port: 0 })
process.stdout.write(`${JSON.stringify({ address })}\n`)
