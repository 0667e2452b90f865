import { IntakeError } from './error.ts'
import type { IntakeSettings } from './new-job.ts'
import { runTask, type TaskName, type TaskResult, type Tasks } from './tasks.ts'

export interface ThreadTask<Name extends TaskName = TaskName> {
  /** As JSON: the same text stands for the same settings, of which a copy comes with each task. */
  settings: string
  name: Name
  given: Tasks[Name]['needs']
}

let last: { text: string; settings: IntakeSettings } | null = null

export default function run({ settings, name, given }: ThreadTask): TaskResult<TaskName> {
  if (last?.text !== settings) last = { text: settings, settings: JSON.parse(settings) as IntakeSettings }
  try {
    return { ok: true, made: runTask(last.settings, name, given) }
  } catch (error) {
    if (!(error instanceof IntakeError)) throw error
    return { ok: false, code: error.code, detail: error.message, param: error.param }
  }
}
