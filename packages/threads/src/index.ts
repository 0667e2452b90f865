export { createThreads, type Threads, type ThreadsOptions } from './threads.ts'
