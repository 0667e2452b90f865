export { startJanitor, type Janitor, type JanitorContext } from './start.ts'
