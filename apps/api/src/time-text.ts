const dayMs = 86_400_000
/** Days of times that are shown together: created, due, expiring. */
const maxDays = 1_000

const two = Array.from({ length: 100 }, (_, number) => String(number).padStart(2, '0'))
const three = Array.from({ length: 1_000 }, (_, number) => String(number).padStart(3, '0'))
/** The date of a day, by its number. */
const dates = new Map<number, string>()

/** As `toISOString` writes it, which takes several times as long; of a job there are six. */
export function timeText(value: Date): string {
  const at = value.getTime()
  const day = Math.floor(at / dayMs)
  const ms = at - day * dayMs
  const seconds = Math.floor(ms / 1_000)
  const minutes = Math.floor(seconds / 60)
  const [hour, minute, second] = [two[Math.floor(minutes / 60)], two[minutes % 60], two[seconds % 60]]
  return `${dateOf(day, value)}${hour}:${minute}:${second}.${three[ms % 1_000]}Z`
}

function dateOf(day: number, value: Date): string {
  const known = dates.get(day)
  if (known !== undefined) return known
  const iso = value.toISOString()
  const date = iso.slice(0, iso.indexOf('T') + 1)
  if (dates.size >= maxDays) dates.clear()
  dates.set(day, date)
  return date
}
