import { writeFileSync } from 'node:fs'
import { migratedSchema, SCHEMA_FILE } from './migrated-schema.ts'

const { text, migrations } = await migratedSchema()
writeFileSync(SCHEMA_FILE, text)
console.log(`written: ${SCHEMA_FILE}, from ${migrations} migrations`)
