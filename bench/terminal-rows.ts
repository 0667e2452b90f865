import type { Bench } from './bench.ts'
import { query } from './query.ts'
import { promptOf, submissionOf } from './load/spec.ts'

export interface TerminalRows {
  /** Keys are `<prefix>-<n>`, n from 0, and name the requests that the load generator sends under them. */
  prefix: string
  count: number
  /** When they expire, relative to now; negative: they have. */
  expiresInSeconds: number
}

/** Rows of one statement. */
const batch = 50_000
/** Of the answer; a short completion with its envelope. */
const answerBytes = 600

/** A text constant of SQL in which `placeholder` is replaced by n. */
function literal(text: string, expression: string): string {
  return `replace('${text.replaceAll("'", "''")}', '%PROMPT%', ${expression})`
}

/**
 * Writes succeeded jobs as the system itself would have left them, much faster than it could: made an hour ago one after
 * the other, ids in that order, fingerprints those of the requests.
 */
export async function insertTerminalRows(bench: Bench, url: string, rows: TerminalRows): Promise<void> {
  const { prefix, count, expiresInSeconds } = rows
  // What the generator's text for n is, with n left to SQL.
  const [before = '', after = ''] = promptOf(prefix, 0).split(`${prefix}-0`)
  const sentence = `${before}${prefix}-`
  const prompt = `rpad('${sentence}' || n || '${after.split('lorem')[0] ?? ''}', 200, 'lorem ipsum ')`
  const { operation, request } = submissionOf(prefix, 0) as { operation: string; request: { model: string } }
  const asSent = JSON.stringify({ model: request.model, messages: [{ role: 'user', content: '%PROMPT%' }] })
  const inMembersOrder = `{"messages":[{"content":"%PROMPT%","role":"user"}],"model":"${request.model}"}`
  const canonical = `{"operation":"${operation}","request":${inMembersOrder}}`
  const statement = `
    with made as (
    insert into jobs (id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms,
      ttl_seconds, deadline_seconds, state, attempt, on_uncertain, max_attempts, max_paid_attempts, tries, paid, billed,
      run_at, deadline_at, response_status, answer_attempt, input_tokens,
      output_tokens, created_at, started_at, completed_at, expires_at)
    select (lpad(to_hex((extract(epoch from made) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
        || substr(md5(n::text), 4, 15))::uuid,
      'default', '${prefix}-' || n, sha256(convert_to(${literal(canonical, prompt)}, 'UTF8')), '${operation}',
      '${request.model}', 'simulated', 5, 600000,
      172800, 604800, 'succeeded', 1, 'rerun', 5, 2, 1, 1, 1,
      made, made + interval '7 days', 200, 1, 50, 64, made, made, made, now() + make_interval(secs => ${expiresInSeconds})
    from generate_series($1::int, $2::int) as n, lateral (
      select now() - interval '1 hour' + make_interval(secs => n * 3000.0 / ${count}) as made
    ) as times
    returning id, tenant_id, split_part(idempotency_key, '-', -1) as n
    ),
    asked as (insert into requests (job_id, request) select id, convert_to(${literal(asSent, prompt)}, 'UTF8') from made)
    insert into answers (job_id, tenant_id, attempt, response, response_content_type, findable)
    select
      id, tenant_id, 1,
      convert_to('{"id":"' || n || '","text":"' || repeat(md5(n), ${Math.ceil(answerBytes / 32)}) || '"}', 'UTF8'), 'application/json', false
    from made`
  for (let first = 0; first < count; first += batch) {
    bench.signal.throwIfAborted()
    await query(url, statement, [first, Math.min(first + batch, count) - 1])
  }
  await query(url, 'vacuum (analyze) jobs, requests, answers')
  await query(url, 'checkpoint')
}
