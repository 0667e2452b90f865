import type { Case } from '../case.ts'
import type { CaseName } from '../case-names.ts'
import { bulk } from './bulk.ts'
import { drain } from './drain.ts'
import { read, replay } from './replay.ts'
import { submit } from './submit.ts'

const cases: readonly Case[] = [submit, bulk, replay, read, drain]

export function casesNamed(names: readonly CaseName[]): Case[] {
  return cases.filter(({ name }) => names.includes(name))
}
