/** Whether a stock SDK asks, or something like it: its users send again what its status does not forbid. */
export function isSdkPath(url: string): boolean {
  return url.startsWith('/openai/') || isAnthropicPath(url)
}

/** Whether Anthropic's SDK asks, which sends its key and reads errors in its own way. */
export function isAnthropicPath(url: string): boolean {
  return url.startsWith('/anthropic/')
}
