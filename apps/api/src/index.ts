export { allScopes, ensureBootstrapKey, hashKey, newApiKey } from './keys.ts'
export { startApi, type RunningApi } from './start.ts'
export type { ApiContext } from './context.ts'
