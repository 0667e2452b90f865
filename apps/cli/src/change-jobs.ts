import { CliError, exitCodes, reasonOf } from './errors.ts'
import type { Client } from './http.ts'
import type { Job } from './job.ts'
import { stateStyle } from './job-view.ts'
import { withClient } from './server.ts'
import { paint, print, printJson, remark } from './terminal.ts'

type Outcome = { id: string; state: Job['state'] } | { id: string; error: { code: string; message: string } }

/**
 * Asks one thing of several jobs, one after the other, each with its own outcome: one that refuses does not keep the others
 * from it. Exit code 1 when one did.
 */
export async function changeJobs(
  ids: readonly string[],
  verb: 'cancel' | 'retry' | 'fail',
  body: object,
  asJson: boolean,
): Promise<void> {
  await withClient(async (client) => {
    const outcomes: Outcome[] = []
    for (const id of ids) {
      const outcome = await changeOne(client, id, verb, body)
      outcomes.push(outcome)
      if (!asJson) report(outcome)
    }
    if (asJson) printJson({ object: 'list', data: outcomes })
    if (outcomes.some((outcome) => 'error' in outcome)) process.exitCode = exitCodes.failed
  })
}

async function changeOne(client: Client, id: string, verb: string, body: object): Promise<Outcome> {
  try {
    const job = await client.json<Job>({
      method: 'POST',
      path: `/v1/jobs/${encodeURIComponent(id)}/${verb}`,
      body: JSON.stringify(body),
      // A second retry would find the job queued by the first and be refused: the answer would be misleading.
      repeatable: false,
    })
    return { id, state: job.state }
  } catch (error) {
    if (!(error instanceof CliError) || error.exitCode === exitCodes.unreachable || isAuth(error)) throw error
    const code = 'code' in error ? String(error.code) : 'error'
    return { id, error: { code, message: `${reasonOf(error)}${error.hint === null ? '' : `. ${error.hint}`}` } }
  }
}

/** What holds for every id is said once. */
function isAuth(error: CliError): boolean {
  return 'status' in error && (error.status === 401 || error.status === 403)
}

function report(outcome: Outcome): void {
  if ('error' in outcome) return remark(`${outcome.id}: ${outcome.error.message}`)
  const style = stateStyle(outcome.state)
  print(`${outcome.id} ${style === null ? outcome.state : paint(process.stdout, style, outcome.state)}`)
}
