import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { LogLine } from '@askonce/testkit'
import type { Price, TenantEvidence, TenantRules } from './limits.ts'

export const model = 'gpt-chaos'
/** The limit of each request, and what the upstream writes in each answer. */
export const maxTokens = 16
/** Output is dear and input is cheap: then what a claim reserves is little more than what the call costs, and one call too many shows. */
const price: Price = { inputUsd: 1, outputUsd: 1_000 }
/** The most that a call can cost: its output, and far more input than it has. */
const dollarsPerCall = 0.0175
/** Limits are far below what is submitted, so that they are met all the time, on a slow machine too. */
const share = 1 / 3
const raiseEveryMs = 10_000
/** Two processes may disagree about the time by less. */
const clockSlackMs = 1_000

/** A tenant with limits. Its producer, and so the beginning of its keys, has its name. */
interface Team {
  tenant: string
  apiKey: string
  weight: number
  rules: { -readonly [Name in keyof TenantRules]: TenantRules[Name] }
}

type Sql = (text: string, values?: unknown[]) => Promise<unknown[]>

/** Writes the configuration by which the product knows what a call costs; returns its path. */
export function writePrices(directory: string): string {
  const path = join(directory, 'askonce.json')
  const { inputUsd, outputUsd } = price
  const prices = [{ model, input_per_million_usd: inputUsd, output_per_million_usd: outputUsd }]
  writeFileSync(path, JSON.stringify({ prices }))
  return path
}

/**
 * Two tenants that want more than they may have: team-a is limited in calls at once and in a minute, team-b in dollars. Its budget is raised
 * every few seconds, so that it is met again and again, under every fault.
 */
export class Teams {
  readonly list: readonly Team[]
  private readonly teamB: Team
  private readonly stepUsd: number

  /** @param rate new keys a second of each of them */
  constructor(rate: number) {
    this.stepUsd = Math.max(dollarsPerCall, (share * rate * dollarsPerCall * raiseEveryMs) / 1000)
    const none = { maxRunning: null, callsPerMinute: null, budgets: [], liftedAtMs: null }
    const perMinute = Math.ceil(share * rate * 60)
    const teamA: Team = {
      tenant: 'team-a',
      apiKey: 'chaos-key-of-team-a',
      weight: 1,
      // So many at once use up the calls of a minute in less than one.
      rules: { ...none, maxRunning: Math.max(1, Math.ceil(rate / 4)), callsPerMinute: perMinute },
    }
    this.teamB = {
      tenant: 'team-b',
      apiKey: 'chaos-key-of-team-b',
      weight: 2,
      rules: { ...none, budgets: [{ fromMs: 0, usd: this.stepUsd }] },
    }
    this.list = [teamA, this.teamB]
  }

  /** Before anybody submits. */
  async create(sql: Sql): Promise<void> {
    for (const { tenant, apiKey, weight, rules } of this.list) {
      const budget = rules.budgets[0]?.usd ?? null
      await sql(
        'insert into tenants (id, weight, max_running, calls_per_minute, budget_day_usd) values ($1, $2, $3, $4, $5)',
        [tenant, weight, rules.maxRunning, rules.callsPerMinute, budget],
      )
      await sql(
        `insert into api_keys (tenant_id, name, key_hash, hint, scopes)
         values ($1, 'chaos', sha256(convert_to($2, 'UTF8')), 'chaos', '{submit,read}')`,
        [tenant, apiKey],
      )
    }
  }

  /** Raises the budget every few seconds, until `signal` aborts. While Postgres is away it stays as it is. */
  async raise(sql: Sql, signal: AbortSignal): Promise<void> {
    const { tenant, rules } = this.teamB
    for (let usd = 2 * this.stepUsd; ; usd += this.stepUsd) {
      await sleep(raiseEveryMs, undefined, { signal }).catch(() => undefined)
      if (signal.aborted) return
      // From here on it may be in force, whether or not the reply comes.
      rules.budgets = [...rules.budgets, { fromMs: Date.now() - clockSlackMs, usd }]
      await sql('update tenants set budget_day_usd = $2 where id = $1', [tenant, usd]).catch(() => undefined)
    }
  }

  /** Takes all limits away, so that what waited for them comes to its end like everything else. */
  async lift(sql: Sql): Promise<void> {
    for (const { rules } of this.list) rules.liftedAtMs = Date.now() - clockSlackMs
    await sql(
      'update tenants set max_running = null, calls_per_minute = null, budget_day_usd = null where id = any($1)',
      [this.list.map(({ tenant }) => tenant)],
    )
  }

  async evidence(logOf: (prefix: string) => Promise<LogLine[]>): Promise<TenantEvidence[]> {
    return Promise.all(
      this.list.map(async ({ tenant, rules }) => {
        const log = await logOf(`${tenant}-`)
        return { tenant, rules: { ...rules }, price, log }
      }),
    )
  }
}
