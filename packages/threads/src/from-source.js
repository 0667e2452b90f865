import { register } from 'tsx/esm/api'
import { workerData } from 'piscina'

// Node before 22.18, run from the sources: a thread has none of the loaders of its process.
register()
const { default: run } = await import(workerData)

export default run
