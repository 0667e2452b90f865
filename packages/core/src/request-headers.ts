/** Headers of a caller that go to the provider with its request, by lower-case name. */
export type RequestHeaders = Readonly<Record<string, string>>

/** Betas change what a request means: they are part of what a key names. Every other header that is passed on is not. */
export const betaHeaders = ['anthropic-beta', 'openai-beta'] as const

/** The headers that the fingerprint covers; null: there are none, and the fingerprint is that of the request alone. */
export function namedHeaders(headers: RequestHeaders | null): { [name: string]: string } | null {
  const named = betaHeaders.flatMap((name) => {
    const value = headers?.[name]
    return value === undefined ? [] : [[name, value] as const]
  })
  return named.length === 0 ? null : Object.fromEntries(named)
}

/** Betas as they are compared and sent on: each once, sorted. */
export function sortedBetas(values: readonly string[]): string {
  const betas = values.flatMap((value) => value.split(',')).map((beta) => beta.trim())
  return [...new Set(betas)]
    .filter((beta) => beta !== '')
    .toSorted()
    .join(',')
}
