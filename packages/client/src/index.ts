export type { Fetch } from './fetch.ts'
export { KeyStoreError } from './key-lease.ts'
export { memoryKeyStore, webKeyStore, type KeyStore, type WebStorage } from './key-store.ts'
export { withIdempotency, type IdempotencyOptions } from './with-idempotency.ts'
