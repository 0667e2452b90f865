import { readFileSync } from 'node:fs'
import { PassThrough } from 'node:stream'
import { explainCode } from '@askonce/core'
import {
  createLog,
  createMetrics,
  errorReason,
  eventNames,
  events,
  logFields,
  renderEvents,
  tellQueueShared,
} from '@askonce/telemetry'
import { describe, expect, it, vi } from 'vitest'
import { patientLines } from '../../packages/telemetry/src/patient-lines.ts'

const page = readFileSync(new URL('../../docs/events.md', import.meta.url), 'utf8')

function recorded(level = 'debug') {
  const lines: Record<string, unknown>[] = []
  const destination = { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) }
  return { lines, log: createLog({ level, role: 'test', destination }) }
}

const works = (): Promise<void> => Promise.resolve()

describe('log', () => {
  it('writes level, time, role, event and the fields', () => {
    const { lines, log } = recorded()
    log.child({ tenant: 'default' }).event('attempt.ended', { job_id: 'j', attempt: 2, cost_usd: null })
    expect(lines).toEqual([
      {
        level: 'info',
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as string,
        role: 'test',
        event: 'attempt.ended',
        tenant: 'default',
        job_id: 'j',
        attempt: 2,
        cost_usd: null,
      },
    ])
  })

  it('says once that the queue is shared, however many parts of the process notice', () => {
    const { lines, log } = recorded()
    for (const reason of ['another system', 'another system', null, null, 'another system'])
      tellQueueShared(log, reason)
    expect(lines.map(({ event }) => event)).toEqual(['queue.shared', 'queue.unshared', 'queue.shared'])
  })

  it('drops fields that are not listed and values of another kind, and cuts long texts', () => {
    const { lines, log } = recorded()
    const careless = { prompt: 'secret', attempt: 'secret', job_id: { secret: true }, __proto__: 'secret' } as object
    log.child(careless).event('attempt.ended', { ...careless, reason: 'x'.repeat(10_000) })
    expect(JSON.stringify(lines)).not.toContain('secret')
    expect(lines[0]?.reason).toHaveLength(501)
  })

  it('lets the line win over the child, and does not write a name twice', () => {
    const written: string[] = []
    const log = createLog({ level: 'info', role: 'a', destination: { write: (line) => void written.push(line) } })
    log.child({ lane: 'one' }).event('lane.resumed', { lane: 'two' })
    expect(written[0]?.match(/"lane"/g)).toHaveLength(1)
    expect(JSON.parse(written[0] ?? '')).toMatchObject({ lane: 'two' })
  })

  it('keeps to the level of the event, or to the given one', () => {
    const { lines, log } = recorded('info')
    log.event('request.ended')
    log.event('request.ended', {}, 'warn')
    expect(lines).toMatchObject([{ level: 'warn' }])
  })

  it('refuses an event that is not in the list', () => {
    expect(() => recorded().log.event('no.such' as 'api.started')).toThrow('no.such')
  })
})

describe('lines that nobody reads', () => {
  it('wait up to a bound, are then dropped, and are counted once they are read again', async () => {
    const slow = new PassThrough({ highWaterMark: 1 })
    const dropped: number[] = []
    const lines = patientLines(slow, (count) => void dropped.push(count))
    const line = `${'x'.repeat(1023)}\n`
    for (let times = 0; times < 3_000; times += 1) lines.write(line)
    let read = 0
    slow.on('data', (bytes: Buffer) => (read += bytes.length))
    await vi.waitFor(() => expect(dropped).toHaveLength(1))
    expect(read / line.length + (dropped[0] ?? 0)).toBe(3_000)
    expect(read).toBeGreaterThan(1_000_000)
    lines.write(line)
    slow.destroy()
    lines.write(line)
  })
})

describe('docs/events.md', () => {
  it('holds the table of events as the code has it', () => {
    expect(eventNames.length).toBeGreaterThan(30)
    expect(page).toContain(`\n${renderEvents()}\n`)
  })

  it('explains every field', () => {
    const chapter = page.slice(page.indexOf('## Fields'), page.indexOf('## Events'))
    const explained = new Set([...chapter.matchAll(/`([a-z_]+)`/g)].map(([, name]) => name))
    const unexplained = Object.keys(logFields).filter((name) => name !== 'role' && !explained.has(name))
    expect(unexplained).toEqual([])
  })

  it('knows no field that is not in the list', () => {
    const used = Object.values(events).flatMap(({ fields }) => fields)
    expect(used.filter((name) => !(name in logFields))).toEqual([])
  })
})

describe('errorReason', () => {
  it.each([
    [Object.assign(new Error('password=hunter2'), { code: '23505' }), /^Error 23505$/],
    [Object.assign(new TypeError('secret'), { code: 'ERR_X' }), /^TypeError ERR_X$/],
    [
      new AggregateError([Object.assign(new Error('secret'), { code: 'ECONNREFUSED' })]),
      /^AggregateError.* <- Error ECONNREFUSED \(nothing listens at the address\)$/,
    ],
    [Object.assign(new Error('secret'), { code: 'a secret text' }), /^Error at telemetry\.test\.ts:\d+$/],
    [new Error('one secret\n    two'), /^Error at telemetry\.test\.ts:\d+$/],
    ['a secret', /^a thrown string$/],
    [undefined, /^undefined$/],
  ])('tells class and code, not the message: %#', (error, reason) => {
    expect(errorReason(error)).toMatch(reason)
    expect(errorReason(error)).not.toContain('secret')
  })

  it('tells the message of our own classes, and causes', () => {
    class OverloadedError extends Error {}
    const error = new OverloadedError('10 wait', { cause: Object.assign(new Error('x'), { code: 'EPIPE' }) })
    expect(errorReason(error)).toBe(
      'OverloadedError: 10 wait <- Error EPIPE (the other side has closed the connection)',
    )
  })

  it.each([
    'WRONGPASS',
    'NOPERM',
    'NOAUTH',
    'READONLY',
    'OOM',
    'LOADING',
    'MISCONF',
    'NOREPLICAS',
    'CLUSTERDOWN',
    'ERR',
  ])('tells the first word of a refusal of Redis, what it means, and nothing else of it: %s', (word) => {
    class ReplyError extends Error {}
    const reason = errorReason(new ReplyError(`${word} User hunter2 has no permissions`))
    expect(reason).toBe(`ReplyError ${word} (${explainCode(word)?.meaning})`)
  })

  it('takes no word of other errors, and no word that is not in capitals, for a code', () => {
    class ReplyError extends Error {}
    expect(errorReason(new Error('SECRET word'))).toMatch(/^Error at /)
    expect(errorReason(new ReplyError('Secret word'))).toMatch(/^ReplyError at /)
    expect(errorReason(new ReplyError('SECRET:word'))).toMatch(/^ReplyError at /)
  })

  it('ends on a cause that leads in a circle', () => {
    const error = Object.assign(new Error('x'), { code: 'A' })
    error.cause = error
    expect(errorReason(error).split(' <- ').length).toBeLessThan(6)
  })
})

const figures = {
  jobs: { queued: 3, failed: 0 },
  waiting: { lane: 2, place: 1 },
  oldestQueuedSeconds: 1.5,
  oldestUncertainSeconds: 0,
  workersAlive: 2,
  openAttempts: 4,
}

describe('metrics', () => {
  it('names everything askonce_, beside the process metrics', async () => {
    const metrics = createMetrics()
    metrics.submissions.inc({ outcome: 'new' })
    metrics.callDuration.observe({ lane: 'openai', outcome: 'answered' }, 599)
    metrics.setLaneStates([{ name: 'openai', state: 'open' }])
    metrics.setLaneStates([{ name: 'openai', state: 'stopped' }])
    const { text, contentType } = await metrics.render()
    expect(contentType).toContain('text/plain')
    expect(text).toContain('askonce_submissions_total{outcome="new"} 1')
    expect(text).toContain('askonce_call_duration_seconds_bucket{le="600",lane="openai",outcome="answered"} 1')
    expect(text).toContain('askonce_lane_state{lane="openai",state="stopped"} 1')
    expect(text).not.toContain('state="open"')
    expect(text).toContain('process_cpu_seconds_total')
    const names = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name = '']) => name)
    expect(names.filter((name) => !/^(askonce|process|nodejs)_/.test(name))).toEqual([])
  })

  it('shows figures of workers only where there is a worker, never as zero of a process that is none', async () => {
    const metrics = createMetrics()
    const ofWorkers = /^askonce_(?:spool_writable|spool_files|claims_held_back|unstored_answers)[ {].*$/gm
    expect((await metrics.render()).text.match(ofWorkers)).toBeNull()
    metrics.spoolWritable.set(0)
    metrics.claimsHeldBack.set(0)
    expect((await metrics.render()).text.match(ofWorkers)).toEqual([
      'askonce_spool_writable 0',
      'askonce_claims_held_back 0',
    ])
  })

  it('reads the database once for scrapes that come together, and not again at once', async () => {
    const metrics = createMetrics()
    let reads = 0
    metrics.collectFromDatabase(async () => {
      reads += 1
      return figures
    }, works)
    const pages = await Promise.all([metrics.render(), metrics.render()])
    await metrics.render()
    expect(reads).toBe(1)
    for (const { text } of pages) {
      expect(text).toContain('askonce_jobs{state="queued"} 3')
      expect(text).toContain('askonce_oldest_queued_seconds 1.5')
      expect(text).toContain('askonce_workers_alive 2')
      expect(text).toContain('askonce_open_attempts 4')
      expect(text).toContain('askonce_database_up 1')
    }
  })

  it('shows no figures when the database fails, only that it is down', async () => {
    const metrics = createMetrics()
    metrics.collectFromDatabase(() => Promise.reject(new Error('away')), works)
    const { text } = await metrics.render()
    expect(text).toContain('askonce_database_up 0')
    expect(text).not.toMatch(/^askonce_(jobs|workers_alive|oldest_queued_seconds|open_attempts)[ {]/m)
  })

  it('is down and shows its figures while the database can be read and takes no writes', async () => {
    const metrics = createMetrics()
    metrics.collectFromDatabase(
      () => Promise.resolve(figures),
      () => Promise.reject(new Error('a standby')),
    )
    const { text } = await metrics.render()
    expect(text).toContain('askonce_database_up 0')
    expect(text).toContain('askonce_workers_alive 2')
  })

  it('does not wait for a database that says nothing', async () => {
    const metrics = createMetrics()
    metrics.collectFromDatabase(() => new Promise(() => undefined), works)
    const { text } = await metrics.render()
    expect(text).toContain('askonce_database_up 0')
  })
})
