export type { WorkerContext } from './context.ts'
export { startWorker, type Worker } from './start.ts'
