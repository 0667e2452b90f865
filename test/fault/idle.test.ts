import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { leakCheck, reapAll } from '@askonce/testkit'
import { expect, test } from 'vitest'
import { measureIdle } from './idle.ts'

// DESIGN.md §7: how it is fast; with nothing to do it costs next to nothing, on a laptop too.
// Not covered: the figure itself. A busy machine makes each wake-up several times dearer; `npm run measure:idle` on a quiet one says it.
test('askonce start with nothing to do asks its database seldom, over few connections', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'askonce-idle-'))
  try {
    const idle = await measureIdle(directory, { settleMs: 15_000, measureMs: 15_000 })
    expect(idle.connections).toBeLessThan(20)
    expect(idle.transactionsPerSecond).toBeLessThan(16)
    expect(idle.cpuPercent).toBeLessThan(10)
  } finally {
    await reapAll()
    await rm(directory, { recursive: true, force: true })
    await leakCheck()
  }
}, 180_000)
