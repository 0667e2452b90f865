// There is no JavaScript API in TypeScript 7, and a parser would be one more dependency for a few questions that a
// tokenizer of comments and strings can answer. It does not know regular expressions: a quote in one can hide the rest
// of its line from the checks, never more.
const TOKEN = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`/g

/** The text with comments blanked; line numbers stay. */
function withoutComments(text: string): string {
  return text.replaceAll(TOKEN, (token) => (token.startsWith('/') ? token.replaceAll(/[^\n]/g, ' ') : token))
}

export type Found = { line: number; text: string }

function findAll(text: string, pattern: RegExp, group = 0): Found[] {
  return [...text.matchAll(pattern)].map((match) => ({
    line: text.slice(0, match.index).split('\n').length,
    text: match[group] ?? '',
  }))
}

const IMPORT_FORMS = [
  /^[ \t]*(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]/gm,
  /^[ \t]*import\s*['"]([^'"]+)['"]/gm,
  /\b(?:import|require)\s*\(\s*['"`]([^'"`]+)['"`]/g,
]

/** Every module that a file names: static, dynamic, type-only and re-exported. */
export function importsOf(text: string): Found[] {
  const code = withoutComments(text)
  return IMPORT_FORMS.flatMap((form) => findAll(code, form, 1)).toSorted((a, b) => a.line - b.line)
}

const SQL_IN_STRINGS = [
  /^\W*select\b[^]*\sfrom\s/i,
  /^\W*with\s+\w+(?:\s*\([^)]*\))?\s+as\s/i,
  /\binsert\s+into\s+["\w$]/i,
  /\bupdate\s+["\w.$]+\s+set\s/i,
  /\bdelete\s+from\s+["\w$]/i,
]

/** SQL in string literals, kysely's `sql` tag, and calls of `.query(`, as pg's clients have it. */
export function sqlIn(text: string): Found[] {
  const code = withoutComments(text)
  const strings = findAll(code, TOKEN).filter((token) =>
    SQL_IN_STRINGS.some((form) => form.test(token.text.slice(1, -1))),
  )
  const tags = findAll(code, /\bsql(?:\.\w+)?(?:<[^`;]*?>)?`/g)
  const calls = findAll(code, /\.query(?:<[^();]*>)?\(/g)
  return [...strings, ...tags, ...calls].toSorted((a, b) => a.line - b.line)
}
