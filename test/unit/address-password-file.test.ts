import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { postgresParts } from '@askonce/address'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'

let home: string
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'askonce-home-'))
  vi.stubEnv('HOME', home)
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

const passwordFor = (url: string): string => {
  const { password } = postgresParts(url, null)
  return typeof password === 'string' ? password : password()
}
const write = (text: string, mode = 0o600): void => {
  writeFileSync(join(home, '.pgpass'), text)
  chmodSync(join(home, '.pgpass'), mode)
}

it('is the first line of ~/.pgpass that fits', () => {
  write('# h:5432:d:u:no\nother:*:*:*:no\nh:5432:d\\:e:u:a\\:b\\\\c#d\n*:*:*:u:rest:cut\nlocalhost:*:*:s:socket\n')
  expect(passwordFor('postgres://u@h/d%3Ae')).toBe('a:b\\c#d')
  expect(passwordFor('postgres://u@h/other')).toBe('rest')
  expect(passwordFor('postgres://s@/d?host=/run/postgresql')).toBe('socket')
  expect(passwordFor('postgres://u:own@h/d')).toBe('own')
  expect(() => passwordFor('postgres://nobody@h/d')).toThrow(/DATABASE_URL has none, and no line of .*pgpass is for it/)
})

it('says what to do where there is none', () => {
  expect(() => passwordFor('postgres://u@h/d')).toThrow(
    /^PostgreSQL asks for a password, and DATABASE_URL has none, nor PGPASSWORD or/,
  )
  write('*:*:*:*:hunter2\n', 0o644)
  expect(() => passwordFor('postgres://u@h/d')).toThrow(/others may read it too: chmod 600 /)
})
