import type { BatchRow, FileRow } from '@askonce/store'
import { Problem } from '../../problem.ts'

/** Unix seconds, as the OpenAI API writes times. */
export function unix(date: Date): number
export function unix(date: Date | null): number | null
export function unix(date: Date | null): number | null {
  return date === null ? null : Math.floor(date.getTime() / 1000)
}

/** How ids of ours look in the SDKs: a prefix, and the id without its dashes. */
export function publicId(prefix: 'file-' | 'batch_' | 'msgbatch_', id: string): string {
  return prefix + id.replaceAll('-', '')
}

/** The id in a public one; null: it is not of that form. */
export function readPublicId(prefix: 'file-' | 'batch_' | 'msgbatch_', text: string): string | null {
  if (!text.startsWith(prefix)) return null
  const match = /^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/.exec(text.slice(prefix.length))
  return match === null ? null : match.slice(1).join('-')
}

export function noSuchFile(): Problem {
  return new Problem('not_found', 'There is no such file, or it has expired.', { param: 'id' })
}

export function noSuchBatch(): Problem {
  return new Problem('not_found', 'There is no such batch.', { param: 'id' })
}

/** A file as the OpenAI SDK knows it. */
export function fileView({ id, bytes, created_at, expires_at, filename, purpose }: FileRow): object {
  return {
    id: publicId('file-', id),
    object: 'file',
    bytes,
    created_at: unix(created_at),
    ...(expires_at === null ? {} : { expires_at: unix(expires_at) }),
    filename,
    purpose,
    status: 'processed',
    status_details: null,
  }
}

/** What is ours in a batch: what its lines cost, and how many cost nothing. */
export function ours(batch: BatchRow): object {
  return {
    replayed: batch.replayed,
    input_tokens: batch.input_tokens,
    output_tokens: batch.output_tokens,
    cost_usd: batch.cost_usd,
    key_prefix: batch.key_prefix,
  }
}
