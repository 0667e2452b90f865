export * from './database.ts'
export * from './errors.ts'
export * from './grants.ts'
export * from './group-commit.ts'
export * from './health.ts'
export * from './lane-watch.ts'
export { encodingText, oldestPostgres } from './migration-needs.ts'
export * from './migrate.ts'
export * from './pooler.ts'
export {
  grantsCommand,
  GrantsError,
  lacksText,
  missingText,
  quoteIdentifier,
  readEncoding,
  readMissingGrants,
  tablePrivileges,
} from './privileges.ts'
export { StoreProbe } from './probe.ts'
export { explainRefusal } from './refusals.ts'
export { ReadPool } from './read-pool.ts'
export * from './session.ts'
export * from './recall.ts'
export { lanesToWake, submitBatch, type SubmitKind, type SubmitOrder, type SubmitResult } from './submit.ts'
export { submitLimited, SubmissionRefusedError, type RefusedSubmission } from './submit-limited.ts'
export { PacedSweep, sweepsOf, type Sweep, type Swept } from './sweeps.ts'
export type * from './tables.ts'
export * from './statements/api-keys.ts'
export * from './statements/batch-lines.ts'
export * from './statements/batch-results.ts'
export * from './statements/batch-scan.ts'
export * from './statements/batches.ts'
export * from './statements/claim-jobs.ts'
export * from './statements/decisions.ts'
export * from './statements/delete-jobs.ts'
export * from './statements/end-attempts.ts'
export * from './statements/erase-ledger.ts'
export { forgetCopies, readForgotten } from './statements/forget-copies.ts'
export {
  appendUpload,
  beginUpload,
  deleteFile,
  dropUpload,
  finishUpload,
  listFiles,
  readFilePart,
  readFileRow,
  readFileSize,
  sweepFiles,
} from './statements/files.ts'
export type { NewJob } from './statements/insert-jobs.ts'
export * from './statements/lanes.ts'
export * from './statements/large-answers.ts'
export * from './statements/maybe-attempts.ts'
export * from './statements/ledger.ts'
export { cancelOwnedJobs, disownJobs } from './statements/owned-jobs.ts'
export * from './statements/read-jobs.ts'
export { cancelJobs, failJobs, retryJobs, type ChangeOutcome, type DecisionRequest } from './statements/run-again.ts'
export * from './statements/spend.ts'
export * from './statements/statistics.ts'
export * from './statements/stored-completions.ts'
export * from './statements/stream-chunks.ts'
export * from './statements/tenants.ts'
export { sweepAttempts, sweepDecisions, sweepExpired } from './statements/sweep.ts'
export * from './statements/time-out-jobs.ts'
export * from './statements/waiting.ts'
export * from './statements/workers.ts'
