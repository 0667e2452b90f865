/** How the fake provider treats a key. */
export type Fate = 'answer' | 'fail' | 'uncertain' | 'refuse' | 'hang'

export interface FakeJob {
  id: string
  key: string
  operation: string
  model: string
  request: string
  state: string
  settlesAt: number
  fate: Fate
  replayed: boolean
  /** Attempts; each one was paid. */
  paid: number
}

export type Verb = 'retry' | 'fail' | 'cancel' | 'delete'

export interface Decision {
  ids?: string[]
  filter?: { state?: string; created_before?: string; metadata?: object; key_prefix?: string }
  cursor?: string
  reason?: string
  accept_duplicate_charge?: boolean
  dry_run?: boolean
}

/** A stand-in for the API: enough of it, in memory, and it counts. */
export interface FakeServer {
  url: string
  apiKey: string
  jobs: Map<string, FakeJob>
  /** Jobs that have expired or were deleted: only the ledger knows them. */
  gone: FakeJob[]
  /** Keys of each bulk submission. */
  bulks: string[][]
  /** Every item of them, with everything beside its request. */
  items: Record<string, unknown>[]
  /** Method and path of each request. */
  requests: string[]
  /** Bodies of the decisions, and what each was. */
  decisions: ({ action: Verb } & Decision)[]
  /** What was to be erased from the ledger. */
  erased: object[]
  /** Ids that a decision by filter goes through, until it is through. */
  matching: string[] | null
  /** Bodies of the single submissions. */
  bodies: string[]
  /** How long a job takes from its submission. */
  latencyMs: number
  fateOf: (key: string) => Fate
  /** Text of an answer. */
  answerOf: (key: string) => string
  /** Streams of keys, as they are stored. */
  streams: Map<string, string>
  /** Answered 503 before anything else, so many times. */
  unavailable: number
  /** Reason that unfinished jobs show. */
  waitingFor: { kind: 'lane'; name: string; reason: string; until: null } | null
  simulated: boolean
  /** Runs of a key: what a provider would have charged for. */
  calls(key: string): number
  /** Closes the port and cuts every connection; the jobs stay. */
  pause(): Promise<void>
  resume(): Promise<void>
  close(): Promise<void>
}
