import { redisAddress, tlsAdvice, type RedisAddress } from '@askonce/address'
import { freePort } from '@askonce/embedded'
import { checkRedis } from '@askonce/queue'
import { leakCheck, startRedisNode, type RedisNode } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createAuthority, type Authority, type Certificate } from '../../certificates.ts'

const nodes: RedisNode[] = []
let authority: Authority
let stranger: Authority
let client: Certificate
let foreign: Certificate

/** Starts a Redis that speaks TLS on a port beside its own, which it returns. */
async function start(
  settings: string[] = [],
  options: { server?: Certificate; sentinel?: boolean } = {},
): Promise<number> {
  const { server = authority.issue({ for: ['DNS:localhost', 'IP:127.0.0.1'] }), sentinel = false } = options
  const port = await freePort()
  const files = [`tls-cert-file ${server.cert}`, `tls-key-file ${server.key}`, `tls-ca-cert-file ${authority.ca}`]
  const all = [`tls-port ${port}`, ...files, 'tls-replication yes', ...settings]
  nodes.push(await startRedisNode({ settings: all, sentinel }))
  return port
}

beforeAll(() => {
  authority = createAuthority()
  stranger = createAuthority()
  client = authority.issue({ name: 'askonce' })
  foreign = stranger.issue({ name: 'askonce' })
})
afterAll(async () => {
  await Promise.all(nodes.map((node) => node.stop()))
  authority.remove()
  stranger.remove()
  await leakCheck()
})

/** Nobody's database. */
const question = { prefix: '{askonce}', databaseId: null }

const named = (path: string) => ({ path, from: 'the test' })

function targetOf(url: string, { ca, cert }: { ca?: string; cert?: Certificate } = {}): RedisAddress {
  return redisAddress(url, {
    ca: ca === undefined ? null : named(ca),
    client: cert === undefined ? null : { cert: named(cert.cert), key: named(cert.key) },
  })
}

const adviceOn = async (target: RedisAddress): Promise<string | null> =>
  await checkRedis(target, question).then(
    () => 'connected',
    (error: unknown) => tlsAdvice(error, 'redis'),
  )

describe('rediss:// with a private authority', () => {
  it('works with its file, and says without it what to set', async () => {
    const port = await start(['tls-auth-clients no', 'requirepass p#ss'])
    const url = `rediss://:p%23ss@localhost:${port}/1`
    expect((await checkRedis(targetOf(url, { ca: authority.ca }), question)).summary).toMatch(/^Redis \d/)
    expect(await adviceOn(targetOf(url))).toMatch(/not trusted here: set ASKONCE_REDIS_CA_FILE=/)
    expect(await adviceOn(targetOf(url, { ca: stranger.ca }))).toMatch(/not trusted here/)
  })

  it('says that a certificate has expired, or is for another host', async () => {
    const expired = authority.issue({ for: ['DNS:localhost'], days: -1 })
    const old = await start(['tls-auth-clients no'], { server: expired })
    expect(await adviceOn(targetOf(`rediss://localhost:${old}`, { ca: authority.ca }))).toMatch(/has expired/)
    const elsewhere = authority.issue({ for: ['DNS:redis.example.com'] })
    const other = await start(['tls-auth-clients no'], { server: elsewhere })
    expect(await adviceOn(targetOf(`rediss://localhost:${other}`, { ca: authority.ca }))).toMatch(/is for another host/)
  })

  it('shows a certificate to a server that asks for one', async () => {
    const url = `rediss://localhost:${await start(['tls-auth-clients yes'])}`
    expect(await adviceOn(targetOf(url, { ca: authority.ca, cert: client }))).toBe('connected')
    // Redis closes the connection at once, and what it says of the reason may be lost with it.
    for (const cert of [undefined, foreign]) {
      const advice = await adviceOn(targetOf(url, { ca: authority.ca, ...(cert && { cert }) }))
      expect(advice ?? 'does not accept our certificate').toMatch(/does not accept our certificate/)
    }
  })
})

describe('with client certificates', () => {
  it('a cluster', async () => {
    const port = await start([
      'tls-auth-clients yes',
      'tls-cluster yes',
      'cluster-enabled yes',
      'cluster-announce-ip 127.0.0.1',
    ])
    await nodes.at(-1)?.command('CLUSTER ADDSLOTSRANGE 0 16383')
    const info = async (): Promise<string> => (await nodes.at(-1)?.command('CLUSTER INFO')) ?? ''
    await expect.poll(info, { timeout: 20_000 }).toMatch(/cluster_state:ok/)
    const url = `rediss+cluster://localhost:${port}`
    const { summary } = await checkRedis(targetOf(url, { ca: authority.ca, cert: client }), question)
    expect(summary).toContain('cluster of 1 primaries')
    expect(await adviceOn(targetOf(url, { ca: authority.ca }))).not.toBe('connected')
  })

  it('sentinels and the primary that they name', async () => {
    const primary = await start(['tls-auth-clients yes'])
    const port = await start(['tls-auth-clients yes', `sentinel monitor one 127.0.0.1 ${primary} 1`], {
      sentinel: true,
    })
    const url = `rediss+sentinel://localhost:${port}/one`
    const { summary } = await checkRedis(targetOf(url, { ca: authority.ca, cert: client }), question)
    expect(summary).toContain('by sentinels')
    expect(await adviceOn(targetOf(url, { ca: authority.ca }))).not.toBe('connected')
  })
})
