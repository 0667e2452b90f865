/**
 * What a process says of itself at `/metrics`: the sum of a metric over its labels, or the one sample whose labels are named; 0 for one that
 * it does not have.
 */
export async function readMetric(healthPort: number, name: string): Promise<number> {
  const page = await (await fetch(`http://127.0.0.1:${healthPort}/metrics`)).text()
  const samples = page.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
  return samples.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
}

/** A role says that it has started just before its health server listens. */
export function listens(healthPort: number): Promise<boolean> {
  return fetch(`http://127.0.0.1:${healthPort}/healthz`).then(
    ({ ok }) => ok,
    () => false,
  )
}

/**
 * Attempts whose ends a worker has stored. Asked of the worker, because counting rows would be part of what is measured: of what Postgres
 * reads, and of how long it takes where dead rows stay.
 */
export function endedAttempts(healthPort: number): Promise<number> {
  return readMetric(healthPort, 'askonce_attempts_total')
}
