import type { Arrival, Behaviour } from './upstream-script.ts'

interface Kept {
  id: string
  text: string
  metadata: Record<string, unknown>
  visibleAt: number
}

/** The chat completions that were sent with `"store": true`, as OpenAI keeps them: also those whose connection broke. */
export interface StoredCompletions {
  keep: (arrival: Arrival, behaviour: Behaviour, text: string) => void
  /** The body of `GET /v1/chat/completions?metadata[name]=value`, or of `GET …/{id}`; null: no such completion. */
  read: (url: URL) => string | null
}

export function createStoredCompletions(): StoredCompletions {
  const kept: Kept[] = []
  return {
    keep: ({ path, json }, behaviour, text) => {
      const ran = behaviour.kind === 'answer' || behaviour.kind === 'hang' || behaviour.kind === 'cut'
      if (path !== '/v1/chat/completions' || json['store'] !== true || !ran) return
      const { id, metadata } = JSON.parse(text) as { id: string; metadata: Record<string, unknown> }
      kept.push({ id, text, metadata, visibleAt: performance.now() + (behaviour.storedAfterMs ?? 0) })
    },
    read: (url) => {
      const visible = kept.filter(({ visibleAt }) => visibleAt <= performance.now())
      const id = url.pathname.split('/')[4]
      if (id !== undefined) return visible.find((one) => one.id === id)?.text ?? null
      const wanted = [...url.searchParams].flatMap(([name, value]) => {
        const key = /^metadata\[(.*)\]$/.exec(name)?.[1]
        return key === undefined ? [] : [[key, value] as const]
      })
      const found = visible.filter(({ metadata }) => wanted.every(([name, value]) => metadata[name] === value))
      const page = found.slice(0, Number(url.searchParams.get('limit') ?? 20))
      return `{"object":"list","data":[${page.map(({ text }) => text).join(',')}],"has_more":${page.length < found.length}}`
    },
  }
}
