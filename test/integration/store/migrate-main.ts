import { migrate } from '@askonce/store'

// A migrator in a process of its own, for migrate.test.ts.
const applied = await migrate(process.argv[2] ?? '')
process.stdout.write(`applied ${applied.join(' ')}\n`)
