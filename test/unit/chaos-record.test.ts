import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { answerSha, followRecord, openRecord, type Entry } from '../chaos/record.ts'

let directory: string
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'askonce-record-'))
})
afterAll(() => rmSync(directory, { recursive: true }))

const entry = (key: string): Entry => ({ type: 'consent', key })

test('what was appended is there for a reader, once', async () => {
  const path = join(directory, 'whole')
  const read = followRecord(path)
  expect(read()).toEqual([])
  const record = openRecord(path)
  await Promise.all([record.append([entry('a'), entry('b')]), record.append([entry('c')])])
  expect(read()).toEqual([entry('a'), entry('b'), entry('c')])
  await record.append([entry('d')])
  expect(read()).toEqual([entry('d')])
  await record.close()
})

test('a line that a killed writer left unfinished is never read, and cut off by the next one', async () => {
  const path = join(directory, 'torn')
  const read = followRecord(path)
  appendFileSync(path, `${JSON.stringify(entry('a'))}\n{"type":"acc`)
  expect(read()).toEqual([entry('a')])
  const record = openRecord(path)
  await record.append([entry('b')])
  await record.close()
  expect(read()).toEqual([entry('b')])
  expect(readFileSync(path, 'utf8')).toBe(`${JSON.stringify(entry('a'))}\n${JSON.stringify(entry('b'))}\n`)
})

test('an answer has the same digest whether its JSON was parsed once or twice', () => {
  const answer = { id: 'x', choices: [{ text: 'é\n' }] }
  expect(answerSha(JSON.parse(JSON.stringify(answer)))).toBe(answerSha(answer))
  expect(answerSha({ ...answer, id: 'y' })).not.toBe(answerSha(answer))
})
