import type { Guard } from './guard.ts'

const watch = { file: 'apps/janitor/src/watch-workers.ts', test: 'test/unit/watch-workers.test.ts' }
const workers = { file: 'packages/store/src/statements/workers.ts', test: 'test/integration/store/workers.test.ts' }
const group = { file: 'packages/store/src/group-commit.ts', test: 'test/unit/group-commit.test.ts' }
const record = { file: 'apps/worker/src/spool-record.ts', test: 'test/unit/worker-spool.test.ts' }
const spoolTrouble = { test: 'test/fault/spool-trouble.test.ts' }
const cancel = { file: 'apps/worker/src/start.ts', test: 'test/fault/cancel.test.ts' }

/** Of the processes: who is dead, what is in hand, what waits on disk, who may write. */
export const processGuards: readonly Guard[] = [
  {
    ...watch,
    name: 'a worker is declared dead after half a lease',
    promise: 3,
    guarded: 'startedAt - watched.since >= this.leaseMs',
    broken: 'startedAt - watched.since >= this.leaseMs / 2',
  },
  {
    ...watch,
    name: 'a failed reading does not start the watch anew',
    promise: 3,
    guarded: '      this.watched.clear()\n      throw error',
    broken: '      this.lastReadAt = performance.now()\n      throw error',
  },
  {
    ...watch,
    name: 'a janitor that slept takes all beats for stale',
    promise: 3,
    guarded: ' || now - this.lastReadAt > lateAfterMs',
    broken: '',
  },
  {
    ...watch,
    name: 'a reading that took long counts',
    promise: 3,
    guarded: 'now - startedAt > lateAfterMs || ',
    broken: '',
  },
  {
    ...workers,
    name: 'a worker that has beaten meanwhile is declared dead',
    promise: 3,
    guarded: ' and beat = ${seenBeat}`',
    broken: ' and ${seenBeat}::bigint is not null`',
  },
  {
    ...workers,
    name: 'a dead worker beats on under its old id',
    promise: 3,
    guarded: '${workerId}::uuid and not dead returning id',
    broken: '${workerId}::uuid returning id',
  },
  {
    file: 'apps/worker/src/start.ts',
    test: 'test/fault/worker-before-claim.test.ts',
    only: 'ends the attempt as never sent',
    name: 'an attempt whose claim’s reply was lost stays open for ever',
    promise: 5,
    guarded: 'if (held.mayHold(jobId, attempt) || ending.has(name)) continue',
    broken: 'if (attempt > 0 || held.mayHold(jobId, attempt) || ending.has(name)) continue',
  },
  {
    ...cancel,
    only: 'without the hint',
    name: 'a beat does not abort a call that has lost its job',
    promise: 3,
    guarded: "if (!owned) held.abort(jobId, attempt, 'cancelled')",
    broken: "if (!owned && attempt < 0) held.abort(jobId, attempt, 'cancelled')",
  },
  {
    ...cancel,
    only: 'is not the one that was cancelled',
    name: 'a hint alone aborts a call, whatever its row says',
    promise: 3,
    guarded: "else if (held.holdsAny(payload.split(','))) heartbeat.look()",
    broken: "else if (held.holdsAny(payload.split(','))) held.abortAll('cancelled')",
  },
  {
    file: 'apps/worker/src/recorder.ts',
    test: 'test/integration/roles/worker.test.ts',
    only: 'is spooled, survives a kill',
    name: 'a spool file is deleted before the commit',
    promise: 3,
    guarded: '      const ended = await this.submit(end)\n      if (ended === undefined)',
    broken:
      '      if (answer.file !== null) await safekeeping.remove(answer.file)\n' +
      '      const ended = await this.submit(end)\n      if (ended === undefined)',
  },
  {
    file: 'apps/worker/src/leftovers.ts',
    ...spoolTrouble,
    only: 'damaged files beside a good one',
    name: 'a damaged spool file stays in the way',
    promise: 5,
    guarded: '      if (error instanceof SpoolError) return this.setAside(path, error)\n',
    broken: '',
  },
  {
    file: 'apps/worker/src/back-pressure.ts',
    ...spoolTrouble,
    only: 'a database that beats and refuses answers',
    name: 'a worker pays for more answers than it can put anywhere',
    promise: 3,
    guarded: 'answers >= mostAnswers * share || bytes >= mostBytes * share',
    broken: '(answers >= mostAnswers * share || bytes >= mostBytes * share) && share > 1',
  },
  {
    ...record,
    name: 'a changed spool file is delivered as an answer',
    promise: 2,
    guarded: "createHash('sha256').update(rest).digest('hex') !== head[2]",
    broken: "createHash('sha256').update(rest).digest('hex') === ''",
  },
  {
    ...record,
    file: 'apps/worker/src/spool.ts',
    name: 'a spool file under the name of another attempt is delivered',
    promise: 2,
    guarded: 'basename(path) !== recordName(record.end)',
    broken: "basename(path) === ''",
  },
  {
    ...group,
    name: 'one bad row fails everybody in its batch',
    promise: 1,
    guarded: 'batch.length > 1 && isDataError(error)',
    broken: 'batch.length < 1 && isDataError(error)',
  },
  {
    ...group,
    name: 'two ends of one job share a statement',
    promise: 2,
    guarded: 'identity !== undefined && identities.has(identity)',
    broken: "identity === '' && identities.has(identity)",
  },
  {
    file: 'packages/store/src/database.ts',
    test: 'test/integration/store/database.test.ts',
    name: 'a commit does not wait for the disk',
    promise: 1,
    guarded: "'-c synchronous_commit=on'",
    broken: "'-c synchronous_commit=off'",
  },
  {
    file: 'apps/janitor/src/reconcile.ts',
    test: 'test/fault/api-killed.test.ts',
    only: 'redis form.*runs exactly once',
    name: 'a job that BullMQ has lost, or never got, is not handed over again',
    promise: 1,
    guarded: "if (states[index] === 'missing') lost.push(job)",
    broken: "if (states[index] === 'missing' && now < 0) lost.push(job)",
  },
  {
    file: 'apps/api/src/submissions.ts',
    test: 'test/contract/api/outage.test.ts',
    only: 'a short restart is not noticed',
    name: 'a submission that meets a broken connection is not sent again',
    promise: 5,
    guarded: '!isUnavailable(error) || performance.now() >= giveUpAtMs',
    broken: '!isUnavailable(error) || performance.now() < giveUpAtMs + 1',
  },
  {
    file: 'apps/worker/src/safekeeping.ts',
    test: 'test/fault/answers-in-memory.test.ts',
    name: 'answers that are safe on disk stay in memory',
    promise: 5,
    guarded: 'else answer.end.response = null',
    broken: 'else answer.inUse = false',
  },
]
