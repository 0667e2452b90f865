import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { reapAll } from '@askonce/testkit'
import { measureIdle } from '../test/fault/idle.ts'

// What `askonce start` costs with nothing to do: `npm run measure:idle`, on a machine that does nothing else (Linux).
const directory = await mkdtemp(join(tmpdir(), 'askonce-idle-'))
try {
  const { cpuPercent, connections, transactionsPerSecond } = await measureIdle(directory, {
    settleMs: 60_000,
    measureMs: 60_000,
  })
  process.stdout.write(
    `cpu: ${cpuPercent.toFixed(2)} % of a core, database included\n` +
      `connections: ${connections} at most\ntransactions: ${transactionsPerSecond.toFixed(1)} a second\n`,
  )
} finally {
  await reapAll()
  await rm(directory, { recursive: true, force: true })
}
