export { allScopes, ensureBootstrapKey, hashKey, newApiKey } from './keys.ts'
export { startApi, type RunningApi } from './start.ts'
export type { ApiContext } from './context.ts'
export { tenantJson, useJson } from './tenant-view.ts'
