import { existsSync, readFileSync } from 'node:fs'
import { loadConfig, type Config } from '@askonce/config'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'

// No container engine runs where these tests do. What can be known of the files without one is compared here.

interface Service {
  image?: string
  build?: string
  command: string[]
  environment?: Record<string, string>
  depends_on?: Record<string, { condition: string }>
  healthcheck?: { test: string[]; interval: string; timeout: string; retries: number }
  restart?: string
  read_only?: boolean
  cap_drop?: string[]
  user?: string
  privileged?: boolean
  ports?: string[]
  volumes?: string[]
  stop_grace_period?: string
}

const compose = parse(readFileSync('docker-compose.yml', 'utf8'), { merge: true }) as {
  services: Record<string, Service>
  volumes: Record<string, unknown>
}
const dockerfile = readFileSync('Dockerfile', 'utf8')
const roles = ['api', 'worker', 'janitor']

function service(name: string): Service {
  const found = compose.services[name]
  if (found === undefined) throw new Error(`no service ${name}`)
  return found
}

/** `${NAME:-default}` with nothing set, as compose reads it. */
function interpolate(text: string): string {
  return text.replaceAll(/\$\{[A-Z_]+:-([^}]*)\}/g, '$1')
}

function configOf(name: string): Config {
  const variables: Record<string, string> = {}
  for (const [, key = '', value = ''] of dockerfile.matchAll(/\b([A-Z_]+)=(\S+)/g)) variables[key] = value
  for (const [key, value] of Object.entries(service(name).environment ?? {})) variables[key] = interpolate(value)
  return loadConfig(variables)
}

/** Seconds of `30s`, `2m` and the like. */
function seconds(text: string | undefined): number {
  const [, amount = 'NaN', unit = ''] = /^(\d+)(s|m)$/.exec(text ?? '') ?? []
  return Number(amount) * (unit === 'm' ? 60 : 1)
}

describe('docker-compose.yml', () => {
  it('has the services of the system and no other', () => {
    expect(Object.keys(compose.services).toSorted()).toEqual([
      'api',
      'janitor',
      'migrate',
      'postgres',
      'redis',
      'worker',
    ])
    for (const role of [...roles, 'migrate']) {
      expect(service(role).command).toEqual([role])
      expect(service(role).build).toBe('.')
    }
  })

  it('gives every service that stays a health check and a restart', () => {
    for (const [name, { healthcheck, restart }] of Object.entries(compose.services)) {
      if (name === 'migrate') continue
      expect(healthcheck, name).toMatchObject({ interval: '10s', timeout: '5s', retries: 3 })
      expect(restart, name).toBe('unless-stopped')
    }
  })

  it('asks each role for its readiness, on the port that its configuration names', () => {
    for (const role of roles) {
      const { http } = configOf(role)
      const port = role === 'api' ? http.port : http.healthPort
      const [, program, , script] = service(role).healthcheck?.test ?? []
      expect(program).toBe('node')
      expect(script).toContain(`fetch('http://127.0.0.1:${port}/readyz')`)
      expect(http.host).toBe('0.0.0.0')
    }
  })

  it('passes only variables that the configuration knows, to an image whose folders they name', () => {
    for (const role of [...roles, 'migrate']) {
      const config = configOf(role)
      expect(config.database.url?.reveal()).toBe('postgres://askonce:askonce@postgres:5432/askonce')
      expect(config.redis.url?.reveal()).toBe('redis://redis:6379/0')
      expect(config.providersOn).toBe(false)
    }
    const worker = configOf('worker')
    expect(service('worker').volumes).toEqual([`spool:${worker.worker.spoolDir}`])
    expect(dockerfile).toContain(`-o node -g node -m 0700 ${worker.dataDir} ${worker.worker.spoolDir}`)
  })

  it('gives the API and the workers the same provider variables', () => {
    const names = ['OPENAI_API_KEY', 'OPENAI_BASE_URL', 'ANTHROPIC_API_KEY', 'ANTHROPIC_BASE_URL']
    for (const role of ['api', 'worker']) {
      for (const name of names) expect(service(role).environment?.[name]).toBe(`\${${name}:-}`)
    }
  })

  it('starts the roles after the migration, and the migration after the database', () => {
    for (const role of roles) {
      expect(service(role).depends_on?.['migrate']?.condition).toBe('service_completed_successfully')
      expect(service(role).depends_on?.['redis']?.condition).toBe('service_healthy')
    }
    expect(service('migrate').depends_on).toEqual({ postgres: { condition: 'service_healthy' } })
    expect(service('migrate').restart).toBe('no')
  })

  it('waits longer for a worker than its drain takes', () => {
    const { drainMs } = configOf('worker').worker
    // What follows the drain: the last writes, consumers, connections.
    expect(seconds(service('worker').stop_grace_period) * 1000).toBeGreaterThanOrEqual(drainMs + 20_000)
  })

  it('keeps the queue: AOF on, nothing evicted, data in a volume', () => {
    expect(service('redis').image).toMatch(/^redis:[78]/)
    expect(service('redis').command).toEqual([
      'redis-server',
      '--appendonly',
      'yes',
      '--maxmemory-policy',
      'noeviction',
    ])
    expect(service('redis').volumes).toEqual(['redis:/data'])
  })

  it('keeps the database in a volume, where this major version of its image has it', () => {
    const major = Number(/^postgres:(\d+)$/.exec(service('postgres').image ?? '')?.[1])
    expect(major).toBeGreaterThanOrEqual(15)
    expect(major).toBeLessThanOrEqual(18)
    expect(service('postgres').volumes).toEqual([`postgres:/var/lib/postgresql${major >= 18 ? '' : '/data'}`])
    expect(Object.keys(compose.volumes).toSorted()).toEqual(['postgres', 'redis', 'spool'])
  })

  it('publishes the API on this machine only, and nothing else: workers can be scaled', () => {
    for (const [name, { ports }] of Object.entries(compose.services)) {
      expect(ports, name).toEqual(name === 'api' ? ['127.0.0.1:8787:8787'] : undefined)
    }
  })

  it('runs our processes without privileges', () => {
    for (const role of [...roles, 'migrate']) {
      const { read_only, cap_drop, user, privileged } = service(role)
      expect({ read_only, cap_drop, user, privileged }, role).toEqual({
        read_only: true,
        cap_drop: ['ALL'],
        user: undefined,
        privileged: undefined,
      })
    }
  })
})

describe('Dockerfile', () => {
  it('stands on one major version of Node that runs TypeScript by itself', () => {
    const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map(([, base]) => base)
    expect(bases.length).toBeGreaterThan(1)
    expect(new Set(bases).size).toBe(1)
    expect(Number(/^node:(\d+)-slim$/.exec(bases[0] ?? '')?.[1])).toBeGreaterThanOrEqual(24)
  })

  it('runs node itself, as somebody who is not root', () => {
    expect(dockerfile).toMatch(/^ENTRYPOINT \["node", "\/app\/apps\/cli\/bin\/askonce\.js"\]$/m)
    expect([...dockerfile.matchAll(/^USER (.*)$/gm)].map(([, user]) => user)).toEqual(['1000:1000'])
    expect(dockerfile).not.toMatch(/^HEALTHCHECK/m)
  })

  it('installs what production needs, by the lockfile', () => {
    expect(dockerfile).toContain('npm ci --omit=dev')
    expect(dockerfile).toContain('NODE_ENV=production')
  })

  it('copies only what exists and is let through by .dockerignore', () => {
    const letThrough = readFileSync('.dockerignore', 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('!'))
      .map((line) => line.slice(1))
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, paths = '']) => paths.split(' '))
    expect(copied.length).toBeGreaterThan(5)
    expect([...new Set(copied)].toSorted()).toEqual([...letThrough].toSorted())
    for (const path of letThrough) expect(existsSync(path), path).toBe(true)
  })
})
