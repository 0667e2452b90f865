/** Whether a stock SDK asks, or something like it: its users send again what its status does not forbid. */
export function isSdkPath(url: string): boolean {
  return url.startsWith('/openai/') || isAnthropicPath(url)
}

/** Whether Anthropic's SDK asks, which sends its key and reads errors in its own way. */
export function isAnthropicPath(url: string): boolean {
  return url.startsWith('/anthropic/')
}

/**
 * A URL with the path that was meant: base URLs are put together from pieces, so slashes come doubled, or one too many at
 * the end. Encoded ones stay, and so does the query.
 */
export function tidyUrl(url: string): string {
  if (!url.startsWith('/') || !/\/(?:\/|\?|$)/.test(url)) return url
  const query = url.indexOf('?')
  const path = query < 0 ? url : url.slice(0, query)
  const single = path.replaceAll(/\/{2,}/g, '/')
  const tidy = single.length > 1 && single.endsWith('/') ? single.slice(0, -1) : single
  return query < 0 ? tidy : tidy + url.slice(query)
}
