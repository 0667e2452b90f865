import { hash, randomInt } from 'node:crypto'
import { createApiKey, type ApiKey, type Db, type Scope } from '@askonce/store'

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const prefix = 'ak_'
const randomLength = 32

/** Every scope there is. */
export const allScopes: Scope[] = ['submit', 'read', 'admin', 'operator']

/** SHA-256 of a key: what the database keeps of it. */
export function hashKey(key: string): Buffer {
  return hash('sha256', key, 'buffer')
}

/** The first characters, for recognising a key in a list: fewer of a key that a person chose. */
function hintOf(key: string): string {
  return key.startsWith(prefix) ? key.slice(0, prefix.length + 5) : key.slice(0, 4)
}

/** A new key of 32 random characters (190 bits). It is shown once; only its hash and its hint are kept. */
export function newApiKey(): { key: string; hint: string; hash: Buffer } {
  const random = Array.from({ length: randomLength }, () => alphabet[randomInt(alphabet.length)]).join('')
  const key = prefix + random
  return { key, hint: hintOf(key), hash: hashKey(key) }
}

/** Makes sure that this key of tenant `default` exists with every scope, unless it was revoked. Any number of processes may do so at once. */
export function ensureBootstrapKey(db: Db, key: string, name: string): Promise<ApiKey> {
  return createApiKey(db, { tenantId: 'default', name, keyHash: hashKey(key), hint: hintOf(key), scopes: allScopes })
}
