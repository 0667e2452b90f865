import { expect, test } from 'vitest'
import { createRedactor, createScrubber } from '../../packages/providers/src/scrub.ts'

const key = 'corp.key+2026/very-secret-value'
const scrub = createScrubber(key)

test.each([
  [
    'Incorrect API key provided: sk-proj-abcDEF123_456. Find yours',
    'Incorrect API key provided: [redacted] Find yours',
  ],
  ['Incorrect API key provided: sk-abc**********wxyz.', 'Incorrect API key provided: [redacted]'],
  ['Invalid token corp.k****************alue', 'Invalid token [redacted]'],
  [`Key ${key} is not known`, 'Key [redacted] is not known'],
  [`Key "${key.slice(0, 15)}" is not known`, 'Key "[redacted]" is not known'],
  ['header was Authorization: Bearer abc.def', 'header was Authorization: [redacted]'],
  ['Rate limit reached for gpt-4o-mini: 3 / 3', 'Rate limit reached for gpt-4o-mini: 3 / 3'],
  ['a task-manager with a risk-based plan', 'a task-manager with a risk-based plan'],
  ['line one\n\tline\u0000two', 'line one line two'],
])('%s', (text, clean) => {
  expect(scrub(text)).toBe(clean)
})

test('at most 500 characters, redacted before they are counted, and well-formed', () => {
  expect(scrub('x'.repeat(501))).toHaveLength(500)
  expect(scrub('x'.repeat(500))).toBe('x'.repeat(500))
  const cut = scrub(`${'x'.repeat(495)} ${key}`)
  expect(cut.length).toBeLessThanOrEqual(500)
  expect(cut).not.toContain('corp')
  expect(scrub(`${'x'.repeat(498)}${'😀'.repeat(10)}`).isWellFormed()).toBe(true)
})

test('a placeholder key is no secret', () => {
  expect(createScrubber('EMPTY')('the model list is EMPTY')).toBe('the model list is EMPTY')
})

test('a hostile megabyte takes no time', () => {
  const started = performance.now()
  scrub('a'.repeat(1_000_000))
  scrub('*a'.repeat(500_000))
  expect(performance.now() - started).toBeLessThan(200)
})

test('nor does one that is redacted whole', () => {
  const redact = createRedactor(key)
  const started = performance.now()
  for (const text of ['a', '.', '*a', '**a'])
    expect(redact(text.repeat(1_000_000)).length).toBe(text.length * 1_000_000)
  expect(performance.now() - started).toBeLessThan(1_000)
})
