import { createServer, type AddressInfo } from 'node:net'

/** What a worker says of itself over HTTP. */
export interface Health {
  /** For its environment. */
  env: Record<string, string>
  ready(): Promise<{ status: number; problems: string[] }>
  /** Value of one line of /metrics, by its name with labels; null: there is none. */
  metric(name: string): Promise<number | null>
}

export async function healthPort(): Promise<Health> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  const read = (path: string): Promise<Response> => fetch(`http://127.0.0.1:${port}${path}`)
  return {
    env: { ASKONCE_HEALTH_PORT: String(port) },
    async ready() {
      const response = await read('/readyz')
      const { problems } = (await response.json()) as { problems: string[] }
      return { status: response.status, problems }
    },
    async metric(name) {
      const line = (await (await read('/metrics')).text()).split('\n').find((text) => text.startsWith(`${name} `))
      return line === undefined ? null : Number(line.slice(name.length + 1))
    },
  }
}
