/** Relative links of a page, with the line they stand on. Code is not searched. */
export function linksIn(markdown: string): { line: number; target: string }[] {
  const prose = markdown.replaceAll(/^(```+|~~~+)[^]*?^\1|`[^`\n]*`/gm, (code) => code.replaceAll(/[^\n]/g, ' '))
  const found = [...prose.matchAll(/\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)/gm)]
  return found
    .map((match) => ({ line: prose.slice(0, match.index).split('\n').length, target: match[1] ?? match[2] ?? '' }))
    .filter(({ target }) => !/^[a-z][a-z0-9+.-]*:/i.test(target))
}

/** Anchors of a page's headings, as GitHub makes them. */
export function anchorsIn(markdown: string): string[] {
  const prose = markdown.replaceAll(/^(```+|~~~+)[^]*?^\1/gm, '')
  return [...prose.matchAll(/^#{1,6}\s+(.*?)\s*#*$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(/\s/g, '-'),
  )
}

/** Inline and fenced code of a page, one entry a line. */
export function codeIn(markdown: string): { line: number; text: string }[] {
  const blocks = [...markdown.matchAll(/^(```+|~~~+)[^\n]*\n([^]*?)^\1|`([^`\n]+)`/gm)]
  return blocks.flatMap((match) => {
    const first = markdown.slice(0, match.index).split('\n').length
    if (match[3] !== undefined) return [{ line: first, text: match[3] }]
    return (match[2] ?? '').split('\n').map((text, index) => ({ line: first + 1 + index, text }))
  })
}

/** The text between two markers, without the blank lines around it; undefined if they are not there. */
export function between(markdown: string, begin: string, end: string): string | undefined {
  const from = markdown.indexOf(begin)
  const to = markdown.indexOf(end)
  return from === -1 || to < from ? undefined : markdown.slice(from + begin.length, to).trim()
}
