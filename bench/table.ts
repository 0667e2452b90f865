import type { CaseSummary, ContenderSummary, FigureSummary, TargetSummary } from './summary.ts'

/** A number with as many digits as mean something. */
export function readable(value: number): string {
  if (Number.isNaN(value)) return '?'
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-US')
  return Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2)
}

function figureText({ median, spread, unit }: FigureSummary, rounds: number): string {
  const around = rounds > 1 ? ` ±${Math.round(spread * 100)} %` : ''
  return `${readable(median)}${around} ${unit}`
}

function figuresText({ figures, rounds }: ContenderSummary): string {
  const texts = figures.map((figure, index) => (index === 0 ? '' : `${figure.name} `) + figureText(figure, rounds))
  return texts.length === 0 ? 'not measured' : texts.join(', ')
}

interface TargetText {
  what: string
  wanted: string
  reached: string
  verdict: string
}

function targetText(target: TargetSummary, unit: string): TargetText {
  const { figure, of, against, bound, factor, difference, reached, met } = target
  const compared = against === null ? of : `${of} ${difference ? '−' : '÷'} ${against}`
  const isRatio = against !== null && !difference
  return {
    what: against !== null && figure === 'rate' ? compared : `${compared}, ${figure}`,
    wanted: isRatio ? `${bound} ${readable(factor)}` : `${bound} ${readable(factor)} ${unit}`.trimEnd(),
    reached: reached === null ? '?' : readable(reached),
    verdict: met === null ? 'not measured' : met ? 'met' : 'missed',
  }
}

/** Why a rate cannot be had: the cores' time for one unit at that rate, beside what one takes. */
function roomText({ room }: TargetSummary): string {
  if (room === null) return ''
  const spent = room.spent.filter(({ us }) => us >= 1)
  const sum = spent.reduce((total, { us }) => total + us, 0)
  const parts = spent.map(({ on, us }) => `${readable(us)} ${on}`).join(' + ')
  return `; ${readable(room.perSecond)}/s leave all cores ${readable(room.available)} µs for each, and it takes ${readable(sum)}: ${parts}`
}

function unitOf(summary: CaseSummary, { figure, of }: TargetSummary): string {
  const contender = summary.contenders.find((one) => one.contender === of)
  return contender?.figures.find(({ name }) => name === figure)?.unit ?? ''
}

/** For a terminal. */
export function renderText(summary: CaseSummary): string {
  const width = Math.max(...summary.contenders.map(({ contender }) => contender.length))
  const rows = summary.contenders.map((one) => `  ${one.contender.padEnd(width)}  ${figuresText(one)}`)
  const targets = summary.targets.map((target) => {
    const { what, wanted, reached, verdict } = targetText(target, unitOf(summary, target))
    return `  → ${what}: ${reached} (${wanted}): ${verdict}${roomText(target)}`
  })
  return [`${summary.name}: ${summary.title}`, ...rows, ...targets].join('\n')
}

/** For a page: a table of figures, and one of targets. */
export function renderMarkdown(summaries: readonly CaseSummary[]): string {
  const figures = summaries.flatMap(({ name, contenders }) =>
    contenders.map((one) => `| ${name} | ${one.contender} | ${figuresText(one)} |`),
  )
  const targets = summaries.flatMap((summary) =>
    summary.targets.map((target) => {
      const { what, wanted, reached, verdict } = targetText(target, unitOf(summary, target))
      return `| ${summary.name} | ${what}: ${wanted} | ${reached}, ${verdict}${roomText(target)} |`
    }),
  )
  return [
    '| case | who | median ± largest distance from it |',
    '|---|---|---|',
    ...figures,
    '',
    '| case | target | reached |',
    '|---|---|---|',
    ...targets,
  ].join('\n')
}
