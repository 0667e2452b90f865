import { parsers } from '@askonce/store'
import fc from 'fast-check'
import pg from 'pg'
import { expect, test } from 'vitest'
import { timeText } from '../../apps/api/src/time-text.ts'

const oid = pg.types.builtins.TIMESTAMPTZ
const ours = parsers.getTypeParser(oid, 'text') as (text: string) => unknown
const theirs = pg.types.getTypeParser(oid, 'text') as (text: string) => unknown

// As PostgreSQL writes it in UTC: no fraction, or one without zeros at its end.
test('a time is read as node-postgres reads it', () => {
  const time = fc.tuple(
    fc.date({ min: new Date('0001-01-01'), max: new Date('9999-12-31'), noInvalidDate: true }),
    fc.nat(999_999),
  )
  fc.assert(
    fc.property(time, ([date, microseconds]) => {
      const fraction = microseconds === 0 ? '' : `.${String(microseconds).padStart(6, '0').replace(/0+$/, '')}`
      const text = `${date.toISOString().slice(0, 19).replace('T', ' ')}${fraction}+00`
      expect(ours(text)).toEqual(theirs(text))
    }),
  )
})

test.each([
  'infinity',
  '-infinity',
  '0044-03-15 12:00:00+00 BC',
  '12026-01-02 03:04:05+00',
  '2026-01-02 03:04:05+05:30',
  '0001-01-01 00:00:00+00',
])('so is %s', (text) => {
  expect(ours(text)).toEqual(theirs(text))
})

test('a time is written as toISOString writes it', () => {
  const times = fc.date({ min: new Date(-8.64e15), max: new Date(8.64e15), noInvalidDate: true })
  fc.assert(
    fc.property(times, (time) => {
      expect(timeText(time)).toBe(time.toISOString())
    }),
  )
  expect(timeText(new Date(-1))).toBe('1969-12-31T23:59:59.999Z')
})
