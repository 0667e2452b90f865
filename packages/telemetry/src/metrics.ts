import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import { createDatabaseGauges, type DatabaseFigures } from './database-gauges.ts'

const prefix = 'askonce_'

/** Seconds. Calls take from milliseconds (simulated) to the ten minutes of the default timeout. */
const callBuckets = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600]
const waitBuckets = [0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 21_600, 86_400]
const httpBuckets = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const rowBuckets = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000]

/** Gauges of the library under names that only counters may have; each is the sum of the gauge without `_total`. */
const misnamed = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total']

export type Metrics = ReturnType<typeof createMetrics>

/** Every metric of the system, in a registry of its own, plus the usual ones of the process. Names begin with `askonce_`. */
export function createMetrics() {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })
  for (const name of misnamed) registry.removeSingleMetric(name)

  const counter = <Label extends string = never>(name: string, help: string, ...labelNames: Label[]) =>
    new Counter<Label>({ name: prefix + name, help, labelNames, registers })
  const gauge = <Label extends string = never>(name: string, help: string, ...labelNames: Label[]) =>
    new Gauge<Label>({ name: prefix + name, help, labelNames, registers })
  // Absent until somebody sets it: at zero, an API or a janitor would speak for workers, and alerts on zero would lie.
  const gaugeOfWorkers = (name: string, help: string) => {
    const made = gauge(name, help)
    made.remove()
    return made
  }
  const histogram = <Label extends string>(name: string, help: string, buckets: number[], ...labelNames: Label[]) =>
    new Histogram<Label>({ name: prefix + name, help, buckets, labelNames, registers })

  const databaseGauges = createDatabaseGauges(prefix, registers)
  const laneState = gauge('lane_state', '1 for the state that the lane is in', 'lane', 'state')
  // Their number and not their names: anybody may read this page, and callers choose the names.
  const pausedModels = gauge('lane_paused_models', 'Models of the lane that are paused', 'lane')

  return {
    submissions: counter('submissions_total', 'Submissions: new, rerun, attached, replayed, mismatch', 'outcome'),
    attempts: counter('attempts_total', 'Ended attempts', 'outcome', 'billing', 'lane'),
    lookUps: counter('look_ups_total', 'Look-ups of lost answers: found, absent, failed', 'outcome', 'lane'),
    callDuration: histogram('call_duration_seconds', 'Provider calls', callBuckets, 'lane', 'outcome'),
    queueWait: histogram('queue_wait_seconds', 'From due to claimed', waitBuckets, 'lane'),
    groupRows: histogram('group_rows', 'Rows of one group: submit, recall, claim, end, read', rowBuckets, 'group'),
    swept: counter('swept_total', 'Rows deleted: jobs, attempts, decisions, workers, files, batches', 'what'),
    spendUsd: counter('spend_usd_total', 'US dollars, where the price is known', 'lane'),
    tokens: counter('tokens_total', 'Tokens: input, output', 'lane', 'direction'),
    httpRequests: counter('http_requests_total', 'Answered requests', 'route', 'status'),
    httpDuration: histogram('http_request_duration_seconds', 'Answered requests', httpBuckets, 'route'),
    waiters: gauge('waiters', 'Requests that wait for their job'),
    spoolFiles: gaugeOfWorkers('spool_files', 'Answers on disk that wait for the database'),
    spoolWritable: gaugeOfWorkers('spool_writable', '1 while the spool directory can be written, else 0'),
    spoolSetAside: counter('spool_set_aside_total', 'Files of the spool that are left to a person', 'why'),
    unstoredAnswers: gauge('unstored_answers', 'Paid answers that could not be stored so far: memory, disk', 'where'),
    claimsHeldBack: gaugeOfWorkers('claims_held_back', '1 while no claims are made because answers cannot be stored'),
    laneState,
    reclaimed: counter('reclaimed_total', 'Attempts taken from dead workers'),
    loopFailures: counter('loop_failures_total', 'Failed rounds of loops', 'loop'),

    /** Shows each lane in its state and in no other. */
    setLaneStates(lanes: readonly { name: string; state: string }[]): void {
      laneState.reset()
      for (const { name, state } of lanes) laneState.set({ lane: name, state }, 1)
    },
    setPausedModels(lanes: readonly { name: string; count: number }[]): void {
      pausedModels.reset()
      for (const { name, count } of lanes) pausedModels.set({ lane: name }, count)
    },
    /** From now on a scrape also shows these figures, read at most every two seconds; `check` rejects while the database takes no writes. */
    collectFromDatabase(read: () => Promise<DatabaseFigures>, check: () => Promise<void>): void {
      databaseGauges.readWith({ read, check })
    },
    /** The page of /metrics. Never rejects: without a database its gauges are absent and `askonce_database_up` is 0. */
    async render(): Promise<{ contentType: string; text: string }> {
      await databaseGauges.refresh()
      return { contentType: registry.contentType, text: await registry.metrics() }
    },
  }
}
