import { readdirSync, readFileSync } from 'node:fs'
import { redisCommands } from '@askonce/queue'
import { lacksText, tablePrivileges } from '@askonce/store'
import { describe, expect, it } from 'vitest'

// The lists behind `askonce grants`, against what they speak of.

const folder = 'packages/store/src'
/** The functions of the schema run with the rights of whoever calls them. */
const functions = [...readFileSync('migrations/0001_init.sql', 'utf8').matchAll(/\$\$(.*?)\$\$/gs)].map(
  ([body]) => body,
)
const statements = [
  ...readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readFileSync(`${folder}/${name}`, 'utf8')),
  ...functions,
].join('\n')

/** Whether some statement does this to the table. A lock of a row counts as its update. */
const patterns: Record<string, (table: string) => RegExp> = {
  select: (table) => new RegExp(`(?:from|join) ${table}\\b|selectFrom\\('${table}'`),
  insert: (table) => new RegExp(`insert into ${table}\\b|insertInto\\('${table}'`),
  update: (table) =>
    new RegExp(
      `update ${table}\\b|updateTable\\('${table}'|from ${table}\\b[^\`;]*for (?:update|share)|insert into ${table}\\b[^\`;]*do update`,
    ),
  delete: (table) => new RegExp(`delete from ${table}\\b|deleteFrom\\('${table}'`),
}

describe('what a role lacks', () => {
  it('is said by table, and of many tables how many more there are', () => {
    expect(lacksText(['select on jobs', 'insert on jobs', 'usage on schema bullmq'])).toBe(
      'select, insert on jobs; usage on schema bullmq',
    )
    const many = Array.from({ length: 8 }, (_, index) => `select on table_${index}`)
    expect(lacksText(many)).toMatch(/^select on table_0; .*select on table_4; and likewise on 3 more$/)
  })
})

describe('the privileges on tables', () => {
  it('are of every table of the schema, and of no other', () => {
    const schema = readFileSync('schema.sql', 'utf8')
    const tables = [...schema.matchAll(/^create table (\w+)/gm)].map(([, name = '']) => name)
    expect(tables.length).toBeGreaterThan(10)
    expect(Object.keys(tablePrivileges).toSorted()).toEqual(tables.toSorted())
  })

  it.each(Object.entries(tablePrivileges))('on %s are those that a statement uses', (table, privileges) => {
    for (const privilege of privileges)
      expect(statements, `${privilege} on ${table}`).toMatch(patterns[privilege]?.(table) ?? /^$/)
  })

  it.each(Object.entries(tablePrivileges))('on %s are all that statements use', (table, privileges) => {
    // The migrator's own table: it alone writes there.
    const used = ['insert', 'delete'].filter((privilege) => patterns[privilege]?.(table).test(statements) === true)
    expect(used.filter((privilege) => !(privileges as string[]).includes(privilege))).toEqual(
      table === 'schema_migrations' ? ['insert'] : [],
    )
  })
})

describe('the commands of Redis', () => {
  it('hold every command of BullMQ’s scripts', () => {
    const scripts = 'node_modules/bullmq/dist/esm/scripts'
    const text = readdirSync(scripts)
      .filter((name) => name.endsWith('.js'))
      .map((name) => readFileSync(`${scripts}/${name}`, 'utf8'))
      .join('\n')
    const called = [...text.matchAll(/(?:rcall|redis\.call)\(\s*\\?["'](\w+)/g)].map(([, command = '']) =>
      command.toLowerCase(),
    )
    expect(new Set(called).size).toBeGreaterThan(40)
    expect([...new Set(called)].filter((command) => !redisCommands.includes(command))).toEqual([])
  })

  it('hold every command of our own scripts', () => {
    const called = [...readFileSync('packages/queue/src/look.ts', 'utf8').matchAll(/redis\.call\('(\w+)'/g)].map(
      ([, command = '']) => command.toLowerCase(),
    )
    expect(called.length).toBeGreaterThan(3)
    expect(called.filter((command) => !redisCommands.includes(command))).toEqual([])
  })

  it('hold none that reaches beyond the keys of the prefix', () => {
    const beyond = /^(?:flush|keys|scan|config|acl|shutdown|debug|swapdb|migrate|sort|publish|subscribe)/
    expect(redisCommands.filter((command) => beyond.test(command))).toEqual([])
  })
})
