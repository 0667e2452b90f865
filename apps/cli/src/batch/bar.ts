import { clock, dollars } from '../format.ts'
import type { Tally } from './tally.ts'

/** What the bar shows of a run. */
export interface View {
  tally: Tally
  /** Lines per second lately; null: too early to say. */
  rate: number | null
  /** Something that the reader should know now, such as a server that does not answer. */
  note: string | null
}

const longestBar = 30
const shortestBar = 5

/** The progress line, ASCII only, at most `width` characters: what matters least goes first. */
export function bar({ tally, rate, note }: View, width: number): string {
  const { total, done, failed, unpaid } = tally
  const percent = `${total === 0 ? 100 : Math.floor((done / total) * 100)}%`
  const position = `${percent} ${done}/${total}`
  if (note !== null) return cut(`${position}  ${ascii(note)}`, width)
  const speed = rate === null ? '' : `${rate < 10 ? rate.toFixed(1) : Math.round(rate)}/s`
  const eta = `ETA ${rate === null || rate === 0 ? '--:--' : clock(((total - done) / rate) * 1000)}`
  const counts = `${unpaid} replayed ${tally.new} new ${failed} failed`
  const spent = cost(tally)
  const forms = [
    [position, speed, eta, counts, spent],
    [position, speed, eta, `${tally.new} new ${failed} failed`, spent],
    [position, speed, eta, `${failed} failed`],
    [position, eta],
    [position],
  ].map((parts) => parts.filter((part) => part !== '').join('  '))
  const text = forms.find((form) => form.length <= width) ?? cut(percent, width)
  const room = Math.min(longestBar, width - text.length - 4)
  // Beside the poorer forms a bar would take the place of words.
  return text !== forms[0] || room < shortestBar ? text : `[${filled(total === 0 ? 1 : done / total, room)}]  ${text}`
}

/** What this run cost so far, in a word or two. */
export function cost(tally: Tally): string {
  const { costUsd, simulated, unpriced } = tally
  if (simulated > 0 && costUsd === 0 && unpriced === 0) return 'simulated'
  const known = costUsd === 0 && unpriced > 0 ? '?' : `${dollars(costUsd)}${unpriced > 0 ? ' + ?' : ''}`
  return `${known}${simulated > 0 ? ' + simulated' : ''}`
}

function filled(share: number, room: number): string {
  const full = Math.floor(share * room)
  return `${'='.repeat(full)}${full < room ? '>' : ''}`.padEnd(room)
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : text.slice(0, Math.max(0, width - 2)) + '..'.slice(0, Math.max(0, width))
}

/** Anything else may be wider than one column. */
function ascii(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?')
}
