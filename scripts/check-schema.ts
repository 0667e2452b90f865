import { existsSync, readFileSync } from 'node:fs'
import { lineDiff } from './line-diff.ts'
import { migratedSchema, SCHEMA_FILE } from './migrated-schema.ts'

const { text, migrations } = await migratedSchema()
const stored = existsSync(SCHEMA_FILE) ? readFileSync(SCHEMA_FILE, 'utf8') : ''
console.log(`${migrations} migrations`)
if (stored !== text) {
  console.log(`${SCHEMA_FILE} is not what the migrations make (-: the file, +: the migrations). Run: npm run schema`)
  console.log(lineDiff(stored, text))
  process.exitCode = 1
}
