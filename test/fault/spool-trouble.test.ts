import { mkdir, readdir, readFile, rm, truncate, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { migrate } from '@askonce/store'
import type { Child } from '@askonce/testkit'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { call, chat, ledger, startSystem, submit, until, untilState, type System } from './system.ts'
import { healthPort } from './worker-health.ts'

const answered = [{ attempt: 1, outcome: 'answered', billing: 'billed' }]

// DESIGN.md §4: a storage failure is not a job failure, and an answer in hand is never lost in silence.
// Not covered: a disk that says it has synced and has not, and an answer in memory alone when its worker is killed: a maybe, both times.
// Each starts several processes, and servers again: more than a minute on a busy machine.
describe('FAULTS 5, trouble with the spool (redis form)', { timeout: 120_000 }, () => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem('redis')
    address = (await system.api()).address
    await system.started('janitor')
  })
  afterAll(() => system.stop())

  const directory = (name: string): string => join(system.directory, name)
  const spoolOf = (name: string): string => join(directory(name), 'spool')
  /** What a failed test leaves behind would take the next one's jobs, and a database that it left down would fail them. */
  const workers: Child[] = []
  afterEach(async () => {
    await Promise.all(workers.splice(0).map((child) => child.kill()))
    await system.sql('select 1').catch(() => system.postgres.restart())
  })
  const started = async (variables: Record<string, string>): Promise<Child> => {
    const child = await system.started('worker', variables)
    workers.push(child)
    return child
  }
  const env = (name: string): Record<string, string> => ({ ASKONCE_DATA_DIR: directory(name) })
  const linesOf = (child: Child, event: string): Record<string, unknown>[] =>
    child.stdout
      .filter((line) => line.includes(`"event":"${event}"`))
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  const untilLines = (child: Child, event: string, count = 1): Promise<Record<string, unknown>[]> =>
    until(
      () => Promise.resolve(linesOf(child, event)),
      (lines) => lines.length >= count,
      45_000,
    )
  /** Postgres goes away while this call runs. */
  const callAndKillPostgres = async (marker: string, step: object = {}): Promise<string> => {
    await system.upstream.script([{ kind: 'answer', delayMs: 2_000, match: { marker }, ...step }])
    const { body } = await submit(address, marker, { ...chat(marker), on_uncertain: 'hold' })
    await until(
      async () => (await system.upstream.callsBy())[marker] ?? 0,
      (calls) => calls === 1,
      30_000,
    )
    await system.postgres.kill()
    return body.id
  }
  const expectOnce = async (id: string, marker: string): Promise<void> => {
    await untilState(address, id, 'succeeded', 30_000)
    expect(await ledger(system, id)).toEqual(answered)
    expect((await system.upstream.callsBy())[marker]).toBe(1)
  }
  const stop = async (child: Child): Promise<void> => {
    child.signal('SIGTERM')
    expect(await child.exited).toMatchObject({ code: 0 })
  }

  test('damaged files beside a good one: set aside, told once, counted; the good one is delivered and work goes on', async () => {
    const name = 'corrupt'
    const holder = await started(env(name))
    const id = await callAndKillPostgres(name)
    await untilLines(holder, 'spool.written')
    await holder.kill()
    const good = await readFile(join(spoolOf(name), `${id}.1.answer`))
    const file = (attempt: number): string => join(spoolOf(name), `${id}.${attempt}.answer`)
    await writeFile(file(2), '')
    await writeFile(file(3), good.subarray(0, good.length - 1))
    await writeFile(file(4), good)
    await mkdir(file(5))
    await writeFile(file(6), 'askonce-answer 9'.concat(good.toString('latin1').slice(16)), 'latin1')
    await writeFile(file(7), '')
    await truncate(file(7), 2 * 1024 ** 3)
    // Torn by a kill two minutes ago, and one that somebody may be writing at this moment.
    const torn = join(spoolOf(name), '.0199c0de-0000-7000-8000-000000000001.tmp')
    const fresh = join(spoolOf(name), '.0199c0de-0000-7000-8000-000000000002.tmp')
    await writeFile(torn, good.subarray(0, 100))
    await writeFile(fresh, good.subarray(0, 100))
    const past = new Date(Date.now() - 120_000)
    await utimes(torn, past, past)

    await system.postgres.restart()
    const health = await healthPort()
    const next = await started({ ...env(name), ...health.env })
    await expectOnce(id, name)
    const damaged = await untilLines(next, 'spool.damaged', 7)
    expect(damaged.map(({ outcome }) => String(outcome)).toSorted()).toEqual([
      'damaged',
      'damaged',
      'empty',
      'misnamed',
      'not_a_file',
      'too_large',
      'version',
    ])
    const kept = await readdir(spoolOf(name))
    expect(kept.filter((entry) => entry.endsWith('.damaged'))).toHaveLength(7)
    expect(kept.filter((entry) => !entry.endsWith('.damaged'))).toEqual([fresh.slice(spoolOf(name).length + 1)])
    expect(await health.metric('askonce_spool_set_aside_total{why="damaged"}')).toBe(2)
    expect(await health.metric('askonce_spool_set_aside_total{why="empty"}')).toBe(1)
    expect(await health.metric('askonce_spool_files')).toBe(0)
    // Ready with its first beat, which may come a moment after the delivery.
    await until(
      () => health.ready(),
      ({ status, problems }) => status === 200 && problems.length === 0,
      5_000,
    )
    await submit(address, 'goes-on', chat('goes-on'), 30)
    await expectOnce((await submit(address, 'goes-on', chat('goes-on'))).body.id, 'goes-on')
    await stop(next)
  })

  test('a record of another database is left alone and named; one that the ledger does not know is set aside', async () => {
    const name = 'foreign'
    const holder = await started(env(name))
    const id = await callAndKillPostgres(name)
    await untilLines(holder, 'spool.written')
    await holder.kill()
    await system.postgres.restart()
    await untilState(address, id, 'uncertain', 30_000)
    // As after a restore of a backup that is older than the attempt.
    await system.sql('delete from jobs where id = $1', [id])
    await system.sql('delete from attempts where job_id = $1', [id])
    const elsewhere = await system.postgres.createDatabase()
    await migrate(elsewhere.url)
    const stranger = await started({ ...env(name), DATABASE_URL: elsewhere.url })
    const [told] = await untilLines(stranger, 'spool.foreign')
    expect(told).toMatchObject({ job_id: id, file: join(spoolOf(name), `${id}.1.answer`) })
    await stop(stranger)
    expect(await readdir(spoolOf(name))).toEqual([`${id}.1.answer`])
    const next = await started(env(name))
    await untilLines(next, 'spool.orphaned')
    expect(await readdir(spoolOf(name))).toEqual([`${id}.1.answer.orphan`])
    await stop(next)
  })

  test('killed between the synced temporary file and its rename: the whole answer is found and delivered', async () => {
    const name = 'renaming'
    const holder = await started({ ...env(name), ASKONCE_TEST_PAUSE: 'worker.spooling' })
    const id = await callAndKillPostgres(name)
    await holder.waitForLine(/paused at worker\.spooling/, 30_000)
    await holder.kill()
    const [temporary = ''] = await readdir(spoolOf(name))
    expect(temporary).toMatch(/^\..*\.tmp$/)
    const past = new Date(Date.now() - 120_000)
    await utimes(join(spoolOf(name), temporary), past, past)
    await system.postgres.restart()
    const next = await started(env(name))
    await expectOnce(id, name)
    expect(await readdir(spoolOf(name))).toEqual([])
    await stop(next)
  })

  test('what another process leaves is found while a worker runs, without a restart', async () => {
    const name = 'shared'
    const holder = await started(env(name))
    const id = await callAndKillPostgres(name)
    await untilLines(holder, 'spool.written')
    await holder.kill()
    const file = `${id}.1.answer`
    const record = await readFile(join(spoolOf(name), file))
    await rm(join(spoolOf(name), file))
    await system.postgres.restart()
    const next = await started(env(name))
    await untilState(address, id, 'uncertain', 30_000)
    await writeFile(join(spoolOf(name), file), record)
    await untilLines(next, 'spool.delivered')
    await expectOnce(id, name)
    await stop(next)
  })

  test('a file in place of the directory: told at the start, work goes on; an answer stays in memory until one of both is back', async () => {
    const name = 'blocked'
    await mkdir(directory(name), { recursive: true })
    await writeFile(spoolOf(name), 'in the way')
    const health = await healthPort()
    const worker = await started({ ...env(name), ...health.env })
    const [told] = await untilLines(worker, 'spool.unavailable')
    expect(told).toMatchObject({ file: spoolOf(name), reason: expect.stringContaining('EEXIST') as string })
    const ready = await health.ready()
    expect([ready.status, ready.problems.join()]).toEqual([503, expect.stringContaining(spoolOf(name))])
    expect(await health.metric('askonce_spool_writable')).toBe(0)
    // Not needed while Postgres takes the answers.
    expect((await submit(address, 'unneeded', chat('unneeded'), 30)).body.state).toBe('succeeded')

    const id = await callAndKillPostgres(name)
    const [heldBack] = await untilLines(worker, 'worker.held_back')
    expect(heldBack).toMatchObject({ count: 1, reason: expect.stringContaining('in memory only') as string })
    expect(await health.metric('askonce_unstored_answers{where="memory"}')).toBe(1)
    expect(await health.metric('askonce_claims_held_back')).toBe(1)
    expect((await health.ready()).problems.join()).toContain('in memory only')
    // One line for the outage, however often it is tried.
    expect(linesOf(worker, 'spool.unavailable')).toHaveLength(1)

    await rm(spoolOf(name))
    await untilLines(worker, 'spool.written')
    await untilLines(worker, 'worker.resumed')
    expect(await readdir(spoolOf(name))).toEqual([`${id}.1.answer`])
    expect(await health.metric('askonce_unstored_answers{where="disk"}')).toBe(1)
    await system.postgres.restart()
    await expectOnce(id, name)
    await untilLines(worker, 'spool.delivered')
    expect(await readdir(spoolOf(name))).toEqual([])
    expect(await health.metric('askonce_unstored_answers{where="disk"}')).toBe(0)
    await stop(worker)
  })

  test('a disk with room for little: the answer that does not fit stays in memory and is stored when Postgres is back', async () => {
    // The limit of the process stands for the full disk: small files fit, as the probe does, and the answer does not.
    const name = 'full'
    const health = await healthPort()
    const worker = system.spawn('worker', { ...env(name), ...health.env }, [], { fileBlocks: 8 })
    workers.push(worker)
    await worker.waitForLine(/"event":"worker\.started"/, 60_000)
    expect(await health.metric('askonce_spool_writable')).toBe(1)
    const id = await callAndKillPostgres(name, { answerBytes: 200_000 })
    const [told] = await untilLines(worker, 'spool.unavailable')
    expect(told).toMatchObject({ file: spoolOf(name), reason: expect.stringContaining('EFBIG') as string })
    await untilLines(worker, 'worker.held_back')
    expect((await health.ready()).problems.join()).toContain('in memory only')
    // The worker tries again and again, each time with a temporary file that it takes away.
    const records = async (): Promise<string[]> =>
      (await readdir(spoolOf(name))).filter((entry) => !entry.startsWith('.'))
    expect(await records()).toEqual([])
    await system.postgres.restart()
    await expectOnce(id, name)
    await stop(worker)
    expect(await readdir(spoolOf(name))).toEqual([])
  })

  test('SIGTERM with an answer in memory only: it is stored if Postgres comes back in time', async () => {
    const name = 'saved'
    await mkdir(directory(name), { recursive: true })
    await writeFile(spoolOf(name), 'in the way')
    const worker = await started(env(name))
    const id = await callAndKillPostgres(name)
    await untilLines(worker, 'worker.held_back')
    worker.signal('SIGTERM')
    await untilLines(worker, 'worker.stopping')
    await system.postgres.restart()
    expect(await worker.exited).toMatchObject({ code: 0 })
    await expectOnce(id, name)
  })

  test('SIGTERM with an answer in memory only, and nothing comes back: exit 1, and the job is named', async () => {
    // Not covered, and not to be had: the answer itself. Its attempt is maybe billed, as after a kill.
    const name = 'lost'
    await mkdir(directory(name), { recursive: true })
    await writeFile(spoolOf(name), 'in the way')
    const worker = await started({ ...env(name), ASKONCE_DRAIN_SECONDS: '1' })
    const id = await callAndKillPostgres(name)
    await untilLines(worker, 'worker.held_back')
    worker.signal('SIGTERM')
    expect(await worker.exited).toMatchObject({ code: 1 })
    expect(linesOf(worker, 'answer.lost')).toMatchObject([{ job_id: id, attempt: 1 }])
    expect(worker.stderr.join('\n')).toContain(id)
    await system.postgres.restart()
    await untilState(address, id, 'uncertain', 30_000)
    expect(await ledger(system, id)).toEqual([{ attempt: 1, outcome: 'lost', billing: 'maybe' }])
  })

  test('a database that beats and refuses answers: the worker stops paying for more, and delivers all once it may', async () => {
    const name = 'refused'
    const health = await healthPort()
    // A full disk, as Postgres says it, for ends only: claims and beats go through.
    await system.sql(`create function refuse() returns trigger language plpgsql as
      $$ begin raise exception 'no room' using errcode = '53100'; end $$`)
    await system.sql(`create trigger refuse before update on attempts for each row when (new.outcome = 'answered')
      execute function refuse()`)
    // As many places as nobody fills: what stops the worker is what waits.
    const worker = await started({ ...env(name), ...health.env, ASKONCE_CONCURRENCY: '1000' })
    const before = await system.upstream.calls()
    const calls = async (): Promise<number> => (await system.upstream.calls()) - before
    const submitMany = async (from: number, to: number): Promise<void> => {
      const numbers = Array.from({ length: to - from }, (_, index) => from + index)
      const jobs = numbers.map((number) => Object.assign(chat(`${name}-${number}`), { key: `${name}-${number}` }))
      const { status } = await call(address, 'POST', '/v1/jobs/bulk', { body: { jobs } })
      expect(status).toBe(200)
    }
    await submitMany(0, 250)
    const [heldBack] = await untilLines(worker, 'worker.held_back')
    expect(heldBack).toMatchObject({ count: 200 })
    await submitMany(250, 300)
    // Nothing tells that something is not done: six beats, and ten times what a call takes here.
    await sleep(3_000)
    const stopped = await calls()
    expect(stopped).toBeLessThanOrEqual(250)
    expect(stopped).toBe(await health.metric('askonce_unstored_answers{where="disk"}'))
    expect((await health.ready()).problems.join()).toContain('wait for Postgres')

    await system.sql('drop trigger refuse on attempts')
    await until(
      () => system.sql<{ left: number }>(`select count(*)::int as left from jobs where state in ('queued', 'running')`),
      ([row]) => row?.left === 0,
      60_000,
    )
    expect(await calls()).toBe(300)
    expect(linesOf(worker, 'worker.resumed')).toHaveLength(1)
    expect(await readdir(spoolOf(name))).toEqual([])
    await stop(worker)
  })
})
