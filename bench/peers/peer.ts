/** A job as peers store it: the same bytes as a submission to Askonce. */
export interface PeerJob {
  key: string
  payload: object
}

/** A job queue that one could pick instead, driven in the process that uses it. */
export interface Peer {
  /** Makes its schema and its queue. */
  setUp(): Promise<void>
  /** One job, durable when it resolves; the key is unique where the peer can do that. */
  submit(job: PeerJob): Promise<void>
  /** Null: it has none. */
  submitMany: ((jobs: readonly PeerJob[]) => Promise<void>) | null
  /** Starts taking jobs, `concurrency` at once; each is answered at once with `answer` and calls `onStarted`. */
  work(concurrency: number, answer: object, onStarted: () => void): Promise<void>
  /** Jobs whose answers are recorded. */
  finished(): number | Promise<number>
  close(): Promise<void>
}

export const peerNames = ['bullmq-redis', 'bullmq-postgres', 'pg-boss', 'graphile-worker', 'dbos'] as const
export type PeerName = (typeof peerNames)[number]

/** What the process of a peer is to do. */
export type PeerTask =
  | { kind: 'submit'; prefix: string; concurrency: number; warmUpMs: number; durationMs: number }
  | { kind: 'bulk'; prefix: string; items: number; concurrency: number; warmUpMs: number; durationMs: number }
  /** Submits, in bulk where there is a way, or one by one, 50 at once. */
  | { kind: 'fill'; prefix: string; count: number }
  | { kind: 'fill-singly'; prefix: string; count: number }
  /** Works `count` jobs that are there, or as many as it can in `limitMs`, asking every `pollMs` how many are done. */
  | { kind: 'drain'; count: number; concurrency: number; limitMs?: number; pollMs?: number }

export interface PeerSpec {
  peer: PeerName
  databaseUrl: string
  redisUrl: string
  task: PeerTask
}

/** `count` jobs in `seconds`. */
export interface PeerResult {
  count: number
  seconds: number
  /** Of a drain: how many were finished at which time, in seconds since the first was started. */
  progress?: readonly Progress[]
}

export interface Progress {
  seconds: number
  finished: number
}

/** The size of what a simulated provider answers. */
export const peerAnswer = { id: 'answer', model: 'simulated/small', text: 'lorem ipsum '.repeat(40) }
