import type { Case } from '../case.ts'
import type { CaseName } from '../case-names.ts'
import { age } from './age.ts'
import { bulk } from './bulk.ts'
import { cost } from './cost.ts'
import { drain } from './drain.ts'
import { fair } from './fair.ts'
import { flushall } from './flushall.ts'
import { held } from './held.ts'
import { inFlight } from './in-flight.ts'
import { recover } from './recover.ts'
import { redisMemory } from './redis-memory.ts'
import { read, replay } from './replay.ts'
import { submit } from './submit.ts'
import { sweep } from './sweep.ts'
import { tenants } from './tenants.ts'
import { through } from './through.ts'
import { wait } from './wait.ts'
import { widen } from './widen.ts'

const cases: readonly Case[] = [
  submit,
  bulk,
  replay,
  read,
  drain,
  wait,
  inFlight,
  widen,
  recover,
  cost,
  redisMemory,
  flushall,
  held,
  tenants,
  fair,
  through,
  age,
  sweep,
]

export function casesNamed(names: readonly CaseName[]): Case[] {
  return cases.filter(({ name }) => names.includes(name))
}
