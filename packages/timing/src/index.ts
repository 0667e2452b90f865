export { awakeMs } from './awake.ts'
export { arrivals, timeLimit, within } from './time-limit.ts'
