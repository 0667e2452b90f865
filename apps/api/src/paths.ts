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
 * the end. Encoded ones stay, and so does the query. `prefix` is the path of the public address: some proxies take it off, and
 * some do not.
 */
export function tidyUrl(url: string, prefix = ''): string {
  if (!url.startsWith('/')) return url
  const query = url.indexOf('?')
  const path = query < 0 ? url : url.slice(0, query)
  const single = path.includes('//') ? path.replaceAll(/\/{2,}/g, '/') : path
  const own = single === prefix || single.startsWith(`${prefix}/`) ? single.slice(prefix.length) : single
  const tidy = own.endsWith('/') && own !== pageFolder ? own.slice(0, -1) : own
  return (tidy === '' ? '/' : tidy) + (query < 0 ? '' : url.slice(query))
}

/** The slash stays: the links of this page are relative, and a browser resolves them by the address that it shows. */
const pageFolder = '/docs/'

/** The path of an address. */
export function prefixOf(publicUrl: string | null): string {
  return publicUrl === null ? '' : new URL(publicUrl).pathname.replace(/\/$/, '')
}

/** A link to a path of this API: by the public address, or from the root of whatever host was asked. */
export function linkTo(publicUrl: string | null, path: string): string {
  return `${publicUrl ?? ''}${path}`
}
