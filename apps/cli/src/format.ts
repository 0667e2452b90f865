const units = [
  [90, 1, 's'],
  [90, 60, 'min'],
  [48, 3600, 'h'],
  [Number.POSITIVE_INFINITY, 86_400, 'd'],
] as const

/** A duration in whole units, large enough to say something: `3 s`, `5 min`, `36 h`, `12 d`. */
export function roughly(durationMs: number): string {
  const seconds = Math.max(0, durationMs / 1000)
  for (const [below, size, name] of units) {
    const amount = Math.round(seconds / size)
    if (amount < below) return `${amount} ${name}`
  }
  return ''
}

/** An RFC 3339 time relative to this machine's clock: `5 min ago`, `in 2 d`. */
export function relative(time: string | null): string {
  if (time === null) return '-'
  const differenceMs = Date.now() - Date.parse(time)
  // A server's clock that is a little ahead does not make a new job one of the future.
  if (Math.abs(differenceMs) < 2000) return 'just now'
  return differenceMs > 0 ? `${roughly(differenceMs)} ago` : `in ${roughly(-differenceMs)}`
}

/** `0:07`, `12:30`, `3:04:05`. */
export function clock(durationMs: number): string {
  const seconds = Math.max(0, Math.round(durationMs / 1000))
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60]
  const [hours = 0, ...rest] = parts
  if (hours === 0) return `${rest[0]}:${String(rest[1]).padStart(2, '0')}`
  return `${hours}:${rest.map((part) => String(part).padStart(2, '0')).join(':')}`
}

/** US dollars with as many digits as say something: `$0.000123`, `$12.34`. */
export function dollars(amount: number): string {
  if (amount === 0) return '$0'
  const digits = amount >= 1 ? 2 : Math.min(10, 2 - Math.floor(Math.log10(amount)))
  return `$${amount.toFixed(digits).replace(/(?<=\.\d\d\d*?)0+$/, '')}`
}

/** `1 job`, `2 jobs`. */
export function count(amount: number, one: string, many = `${one}s`): string {
  return `${amount} ${amount === 1 ? one : many}`
}
