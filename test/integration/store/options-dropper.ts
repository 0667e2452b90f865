import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

export interface Dropper {
  readonly port: number
  /** Connections so far. */
  connections(): number
  /** Cuts those that are open: whoever had them makes new ones. */
  cutAll(): void
  close(): void
}

/**
 * Stands before a Postgres and passes everything on but the settings with which our sessions begin: as a pooler in session mode with
 * `ignore_startup_parameters = options` does.
 */
export async function startDropper(port: number): Promise<Dropper> {
  let connections = 0
  const open = new Set<Socket>()
  const server = createServer((client) => {
    connections += 1
    const target = connect(port, '127.0.0.1')
    open.add(client)
    client.on('error', () => target.destroy())
    client.on('close', () => {
      open.delete(client)
      target.destroy()
    })
    target.on('error', () => client.destroy())
    target.on('close', () => client.destroy())
    target.pipe(client)
    client.once('data', (startup) => {
      target.write(withoutOptions(startup))
      client.pipe(target)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const cutAll = (): void => {
    for (const client of open) client.destroy()
  }
  return {
    port: (server.address() as AddressInfo).port,
    connections: () => connections,
    cutAll,
    close() {
      cutAll()
      server.close()
    },
  }
}

/** Of the first message: length, version, then names and values that end with a NUL each. */
function withoutOptions(startup: Buffer): Buffer {
  const parts = startup.subarray(8, -2).toString('latin1').split('\0')
  const kept = parts.flatMap((name, index) =>
    index % 2 === 0 && name !== 'options' ? [`${name}\0${parts[index + 1] ?? ''}\0`] : [],
  )
  const body = Buffer.from(`${kept.join('')}\0`, 'latin1')
  const head = Buffer.alloc(8)
  head.writeInt32BE(body.length + 8)
  startup.copy(head, 4, 4, 8)
  return Buffer.concat([head, body])
}
