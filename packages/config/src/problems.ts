/** Everything that is wrong with the configuration, in one error: nobody should have to start a server once per typo. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    const count = problems.length === 1 ? 'a problem' : `${problems.length} problems`
    super(`The configuration has ${count}:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`)
    this.problems = Object.freeze([...problems])
  }
}

/** Edits (insert, delete, replace, swap of neighbours) that turn one string into the other. */
function editDistance(a: string, b: string): number {
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i]
    for (let j = 1; j <= b.length; j += 1) {
      const replace = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      let best = Math.min(replace, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, (before[j - 2] ?? 0) + 1)
      next.push(best)
    }
    before = row
    row = next
  }
  return row[b.length] ?? 0
}

/**
 * The known name that was probably meant, or undefined: the same name without `ASKONCE_` (ASKONCE_PORT), one that
 * is at most 3 edits away, or the only one that continues it (ASKONCE_DRAIN).
 */
export function didYouMean(given: string, known: readonly string[]): string | undefined {
  const unprefixed = given.replace(/^ASKONCE_/, '')
  if (unprefixed !== given && known.includes(unprefixed)) return unprefixed
  const [nearest] = known
    .map((name) => ({ name, edits: editDistance(given, name) }))
    .toSorted((a, b) => a.edits - b.edits)
  // Three edits turn any short word into any other: for those, ask that most of the word is right.
  if (nearest && nearest.edits <= Math.min(3, Math.ceil(unprefixed.length / 3))) return nearest.name
  const longer = known.filter((name) => name.startsWith(given))
  return longer.length === 1 ? longer[0] : undefined
}
