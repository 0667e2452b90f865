import { refusal } from '../errors.ts'

/** Ids that are named on the terminal; the log names them all. */
const mostNamed = 20

/** Ends the program with exit code 1 if a worker had to give up paid answers: their jobs are named. */
export function refuseToLose(jobIds: readonly string[]): void {
  if (jobIds.length === 0) return
  const named = jobIds.slice(0, mostNamed).join(', ')
  const more = jobIds.length > mostNamed ? ` and ${jobIds.length - mostNamed} more` : ''
  throw refusal(
    `stopped with ${jobIds.length} paid answers lost: neither Postgres nor the spool directory took them. ` +
      `Their attempts will be shown as maybe billed. Jobs: ${named}${more}.`,
  )
}
