/** A condition of the product that can be taken away, and the test that must notice. */
export interface Guard {
  /** What the product does without it, in plain words. */
  name: string
  /** Number of the promise in docs/reliability.md that it defends. */
  promise: 1 | 2 | 3 | 4 | 5
  /** Paths from the root of the repository. */
  file: string
  test: string
  /** Text that occurs exactly once in the file, and what it becomes: the smallest change that still loads. */
  guarded: string
  broken: string
  /** Part of the test's full name, where the file takes long; absent: the whole file runs. */
  only?: string
}

/** What is wrong with an entry against the text of its file; null: nothing. */
export function problemOf({ name, file, guarded, broken }: Guard, source: string): string | null {
  const times = source.split(guarded).length - 1
  if (times !== 1) return `${name}: its text occurs ${times} times in ${file}, and must once`
  return guarded === broken ? `${name}: breaks nothing` : null
}
