/** `warn`: works, but look at it; `problem`: something does not work. */
export type Status = 'ok' | 'warn' | 'problem'

/** One thing that was looked at. */
export interface Check {
  name: string
  status: Status
  detail: string
  /** What to do about it; null when there is nothing to do. */
  todo: string | null
}

export function ok(name: string, detail: string): Check {
  return { name, status: 'ok', detail, todo: null }
}

export function warn(name: string, detail: string, todo: string): Check {
  return { name, status: 'warn', detail, todo }
}

export function problem(name: string, detail: string, todo: string): Check {
  return { name, status: 'problem', detail, todo }
}
