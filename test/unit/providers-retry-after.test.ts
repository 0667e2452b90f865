import { describe, expect, test } from 'vitest'
import { parseDurationMs, resetMs, retryAfterMs } from '../../packages/providers/src/retry-after.ts'

const nowMs = Date.parse('2026-11-01T12:00:00Z')
const hourMs = 3_600_000

test.each([
  ['6m0s', 360_000],
  ['1.5s', 1_500],
  ['20ms', 20],
  ['1h2m3s', 3_723_000],
  ['1d', 86_400_000],
  ['0s', 0],
  ['7', 7_000],
  ['0.25', 250],
  ['', null],
  ['soon', null],
  ['5 s', null],
  ['-1s', null],
  ['1s2', null],
  ['2026-11-01T12:00:00Z', null],
])('duration %s', (text, ms) => {
  expect(parseDurationMs(text)).toBe(ms)
})

describe('Retry-After', () => {
  test.each([
    ['seconds', { 'retry-after': '12' }, 12_000],
    ['part of a second', { 'retry-after': '0.5' }, 500],
    ['zero', { 'retry-after': '0' }, null],
    ['zero milliseconds before seconds', { 'retry-after-ms': '0', 'retry-after': '2' }, 2_000],
    ['milliseconds first', { 'retry-after-ms': '1234.2', 'retry-after': '60' }, 1_235],
    ['a bad one of milliseconds', { 'retry-after-ms': 'x', 'retry-after': '2' }, 2_000],
    ['an HTTP date', { 'retry-after': 'Sun, 01 Nov 2026 12:00:30 GMT' }, 30_000],
    ['a date in the past', { 'retry-after': 'Sun, 01 Nov 2026 11:00:00 GMT' }, null],
    ['no number', { 'retry-after': 'NaN' }, null],
    ['a day: no lane waits longer than an hour unattended', { 'retry-after': '86000' }, hourMs],
    [
      'a date by the provider’s clock',
      { 'retry-after': 'Sun, 01 Nov 2026 11:10:30 GMT', date: 'Sun, 01 Nov 2026 11:10:00 GMT' },
      30_000,
    ],
    ['a year', { 'retry-after': '31536000' }, hourMs],
    ['nonsense', { 'retry-after': '5 minutes' }, null],
    ['negative', { 'retry-after': '-5' }, null],
    ['several lines', { 'retry-after': ['3', '9'] }, 3_000],
    ['none', {}, null],
  ])('%s', (_, headers, ms) => {
    expect(retryAfterMs(headers, nowMs)).toBe(ms)
  })
})

describe('reset headers of a 429', () => {
  const openai = (
    remaining: (string | undefined)[],
    reset: (string | undefined)[],
  ): Record<string, string | undefined> => ({
    'x-ratelimit-remaining-requests': remaining[0],
    'x-ratelimit-remaining-tokens': remaining[1],
    'x-ratelimit-reset-requests': reset[0],
    'x-ratelimit-reset-tokens': reset[1],
  })
  test.each([
    ['the exhausted one', openai(['0', '100'], ['1s', '6m0s']), 1_000],
    ['the other exhausted one', openai(['5', '0'], ['1s', '6m0s']), 360_000],
    ['the longer when both are', openai(['0', '0'], ['20ms', '1.5s']), 1_500],
    ['the longest when none is', openai(['5', '100'], ['1s', '6m0s']), 360_000],
    ['the longest when nobody says', openai([], ['1s', '2s']), 2_000],
    ['plain seconds', openai(['0'], ['3']), 3_000],
    ['an hour at most', openai(['0'], ['6h0m0s']), hourMs],
    ['no wait that is over', openai(['0'], ['0s']), null],
    ['no wait beyond a day: a point in time, most likely', openai(['0'], ['1793534400']), null],
    ['nonsense', openai(['0'], ['soon']), null],
    ['none', {}, null],
    [
      'Anthropic’s times',
      {
        'anthropic-ratelimit-requests-remaining': '10',
        'anthropic-ratelimit-requests-reset': '2026-11-01T12:00:01Z',
        'anthropic-ratelimit-input-tokens-remaining': '0',
        'anthropic-ratelimit-input-tokens-reset': '2026-11-01T12:00:45Z',
        'anthropic-ratelimit-output-tokens-remaining': '9',
        'anthropic-ratelimit-output-tokens-reset': '2026-11-01T12:30:00Z',
      },
      45_000,
    ],
  ])('%s', (_, headers, ms) => {
    expect(resetMs(headers, nowMs)).toBe(ms)
  })
})
