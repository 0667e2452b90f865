import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { problemOf } from '../guards/guard.ts'
import { guards } from '../guards/guards.ts'

const root = join(import.meta.dirname, '../..')
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

it('every guard of the list is in its file exactly once, and has its test', () => {
  expect(guards.length).toBeGreaterThanOrEqual(25)
  const wrong = guards.flatMap((guard) => [
    ...[problemOf(guard, read(guard.file))].filter((problem) => problem !== null),
    ...(existsSync(join(root, guard.test)) ? [] : [`${guard.name}: there is no ${guard.test}`]),
  ])
  expect(wrong).toEqual([])
})

it('every named test is in the text of its file', () => {
  const wrong = guards.filter(({ test, only }) => {
    // A pattern may begin with the suite; what stands behind it is of the test.
    const words = only?.split('.*').at(-1)
    return words !== undefined && !read(test).includes(words)
  })
  expect(wrong.map(({ name }) => name)).toEqual([])
})

it('no two have one name, and every promise has guards', () => {
  expect(new Set(guards.map(({ name }) => name)).size).toBe(guards.length)
  expect(new Set(guards.map(({ promise }) => promise))).toEqual(new Set([1, 2, 3, 4, 5]))
})

it('a text that is gone, comes twice or breaks nothing is an error of its entry', () => {
  const guard = { name: 'x', promise: 1, file: 'f', test: 't', guarded: 'a && b', broken: 'a' } as const
  expect(problemOf(guard, 'if (a && b) return')).toBeNull()
  expect(problemOf(guard, 'if (a) return')).toContain('occurs 0 times')
  expect(problemOf(guard, 'a && b || a && b')).toContain('occurs 2 times')
  expect(problemOf({ ...guard, broken: 'a && b' }, 'a && b')).toContain('breaks nothing')
})
