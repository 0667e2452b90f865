const hooksOf = new WeakMap<AbortSignal, Set<() => void>>()

/**
 * Calls `hook` when the signal is aborted, unless the function that comes back is called first. However many hooks a signal has, it has one
 * listener: Node warns of the eleventh, and one signal for a hundred calls is nothing to be warned of.
 */
export function onAbort(signal: AbortSignal, hook: () => void): () => void {
  let hooks = hooksOf.get(signal)
  if (hooks === undefined) {
    hooks = new Set()
    hooksOf.set(signal, hooks)
    const all = hooks
    signal.addEventListener(
      'abort',
      () => {
        for (const each of all) each()
      },
      { once: true },
    )
  }
  hooks.add(hook)
  return () => void hooks.delete(hook)
}
