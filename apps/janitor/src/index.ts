export { startJanitor, sweepBatch, type Janitor, type JanitorContext } from './start.ts'
