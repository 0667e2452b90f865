import { fileKeyStore } from '@askonce/client/node'

// Adds keys one after the other, and names each once the store has acknowledged it, until it is killed.
const store = fileKeyStore(process.argv[2] ?? '')
for (let key = 0; key < 100_000; key += 1) {
  await store.add('digest', String(key))
  process.stdout.write(`added ${key}\n`)
}
