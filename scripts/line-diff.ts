/** The lines that differ, marked `-` and `+`, each block under the last line that both sides share. */
export function lineDiff(left: string, right: string): string {
  const a = left.split('\n')
  const b = right.split('\n')
  // length[i][j]: longest common subsequence of the lines from i and from j on. A schema has few hundred lines.
  const length = Array.from({ length: a.length + 1 }, () => Array.from({ length: b.length + 1 }, () => 0))
  const at = (i: number, j: number): number => length[i]?.[j] ?? 0
  for (let i = a.length - 1; i >= 0; i -= 1) {
    const row = length[i] ?? []
    for (let j = b.length - 1; j >= 0; j -= 1) {
      row[j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1))
    }
  }
  const lines: string[] = []
  let context: string | undefined
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      context = `  ${a[i]}`
      i += 1
      j += 1
      continue
    }
    if (context !== undefined) lines.push(context)
    context = undefined
    if (j >= b.length || (i < a.length && at(i + 1, j) >= at(i, j + 1))) lines.push(`- ${a[i++]}`)
    else lines.push(`+ ${b[j++]}`)
  }
  return lines.join('\n')
}
