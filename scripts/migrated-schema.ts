import { migrate } from '@askonce/store'
import { startTestPostgres } from '@askonce/testkit'
import { describeSchema } from './schema-text.ts'

export const SCHEMA_FILE = 'schema.sql'

/** Migrates an empty database on a private embedded server: its schema as text, and how many migrations ran. */
export async function migratedSchema(): Promise<{ text: string; migrations: number }> {
  const server = await startTestPostgres({ flavour: 'embedded' })
  try {
    const { url } = await server.createDatabase()
    const applied = await migrate(url)
    return { text: await describeSchema(url), migrations: applied.length }
  } finally {
    await server.stop()
  }
}
