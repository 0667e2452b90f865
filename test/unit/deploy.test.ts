import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig, type Config } from '@askonce/config'
import { afterAll, describe, expect, it } from 'vitest'
import { buildProgram } from '../../apps/cli/src/program.ts'
import { nameOf, render, type Manifest } from '../deploy/kustomize.ts'
import { validate } from '../deploy/schemas.ts'
import {
  environmentOf,
  ofKind,
  selects,
  specOf,
  workloadsOf,
  type Selector,
  type Workload,
} from '../deploy/workloads.ts'

// No cluster runs where these tests do. What can be known of the manifests without one is compared here; the processes that they
// start, and the questions that the autoscaler asks, have tests with servers.

const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
const readme = readFileSync('deploy/README.md', 'utf8')
const examples = ['minimal', 'production'] as const
const rendered = new Map(examples.map((name) => [name, render(`deploy/kubernetes/examples/${name}`)]))
const minimal = rendered.get('minimal') as Manifest[]
const production = rendered.get('production') as Manifest[]
const scratch = mkdtempSync(join(tmpdir(), 'askonce-deploy-'))
afterAll(() => rmSync(scratch, { recursive: true }))

function workload(manifests: readonly Manifest[], component: string): Workload {
  const found = workloadsOf(manifests).get(component)
  if (found === undefined) throw new Error(`no ${component}`)
  return found
}

/** A copy to spoil. */
function copyOf(name: string): Manifest {
  const found = production.find((one) => nameOf(one) === name)
  if (found === undefined) throw new Error(`no ${name}`)
  return structuredClone(found)
}

/** What the process makes of its variables, with the files of its ConfigMaps in place. */
function configOf(manifests: readonly Manifest[], one: Workload): Config {
  const env = environmentOf(manifests, one)
  const { ASKONCE_CONFIG: path } = env
  if (path === undefined) return loadConfig(env)
  const mount = one.container.volumeMounts?.find(({ mountPath }) => path.startsWith(`${mountPath}/`))
  const volume = one.pod.volumes?.find(({ name }) => name === mount?.name)
  const map = ofKind(manifests, 'ConfigMap').find(({ metadata }) => metadata.name === volume?.configMap.name)
  const file = path.slice((mount?.mountPath.length ?? 0) + 1)
  const text = (map?.['data'] as Record<string, string> | undefined)?.[file]
  if (text === undefined) throw new Error(`${path} is in no volume`)
  const place = join(scratch, file)
  writeFileSync(place, text)
  return loadConfig({ ...env, ASKONCE_CONFIG: place })
}

const roles = ['api', 'worker', 'janitor']
const components = ['api', 'janitor', 'migrate', 'sweep', 'worker']

describe.each(examples)('the example %s', (example) => {
  const manifests = rendered.get(example) as Manifest[]
  const each = [...workloadsOf(manifests)]

  it('satisfies the schemas of Kubernetes and KEDA', () => {
    for (const manifest of manifests) validate(manifest)
    expect(manifests.length).toBeGreaterThan(15)
  })

  it('has every part, in one namespace, at the version of the program', () => {
    expect(each.map(([component]) => component).toSorted()).toEqual(components)
    const elsewhere = manifests.filter(({ metadata }) => metadata.namespace !== 'askonce')
    expect(elsewhere.map(nameOf)).toEqual(['Namespace/askonce'])
    for (const [component, { container }] of each) {
      expect(container.image, component).toBe(`registry.example.com/askonce:${version}`)
    }
    expect(workload(manifests, 'migrate').manifest.metadata.name).toBe(
      `askonce-migrate-${version.replaceAll('.', '-')}`,
    )
  })

  it('runs commands and options that exist', () => {
    for (const [component, { container }] of each) {
      const [name, ...rest] = container.args
      expect(name).toBe(component)
      const command = buildProgram().commands.find((one) => one.name() === name)
      expect(command?.parseOptions(rest), component).toEqual({ operands: [], unknown: [] })
    }
  })

  it('gives every process variables that the configuration knows, and API and workers the same lanes', () => {
    for (const [, one] of each) {
      const config = configOf(manifests, one)
      expect(config.database.url?.reveal()).toContain('postgres.example.com')
      expect(config.http.host).toBe('0.0.0.0')
    }
    const [api, worker] = ['api', 'worker'].map((role) => configOf(manifests, workload(manifests, role)))
    expect(api?.lanes.length).toBeGreaterThan(1)
    expect(worker?.lanes).toEqual(api?.lanes)
    expect(worker?.prices).toEqual(api?.prices)
  })

  it('keeps the variables that Kubernetes makes of Services away from processes that refuse them', () => {
    const services = ofKind(manifests, 'Service').map(({ metadata }) => metadata.name)
    for (const [component, one] of each) {
      const links = services.map((name) => [`${name.toUpperCase().replaceAll('-', '_')}_PORT`, 'tcp://10.0.0.1:80'])
      const env = { ...environmentOf(manifests, one), ...(Object.fromEntries(links) as Record<string, string>) }
      expect(() => loadConfig(env)).toThrow('not known')
      expect(one.pod['enableServiceLinks'], component).toBe(false)
    }
  })

  it('probes and scrapes the ports on which the processes listen', () => {
    for (const role of roles) {
      const { manifest, container } = workload(manifests, role)
      const { http } = configOf(manifests, workload(manifests, role))
      const [port] = container.ports ?? []
      expect(port?.containerPort, role).toBe(role === 'api' ? http.port : http.healthPort)
      const probes = [container.startupProbe, container.readinessProbe, container.livenessProbe]
      expect(probes.map((probe) => probe?.httpGet)).toEqual(
        ['/healthz', '/readyz', '/healthz'].map((path) => ({ path, port: port?.name })),
      )
      // A check of the servers takes three seconds at most.
      expect(container.readinessProbe?.timeoutSeconds).toBeGreaterThan(3)
      const { template } = specOf(manifest) as { template: { metadata: { annotations: object } } }
      expect(template.metadata.annotations).toMatchObject({ 'prometheus.io/port': String(port?.containerPort) })
    }
    const { url } = configOf(manifests, workload(manifests, 'worker')).client
    const called = ofKind(manifests, 'Service').find(({ metadata }) => url === `http://${metadata.name}`)
    expect(specOf(called) as object).toMatchObject({ ports: [{ port: 80 }] })
    for (const service of ofKind(manifests, 'Service')) {
      const { selector, ports } = specOf(service) as {
        selector: Record<string, string>
        ports: { targetPort: string }[]
      }
      const meant = each.filter(([, { labels }]) => selects({ matchLabels: selector }, labels))
      expect(meant.map(([component]) => `askonce-${component}`)).toEqual([service.metadata.name])
      expect(ports.map(({ targetPort }) => targetPort)).toEqual(meant[0]?.[1].container.ports?.map(({ name }) => name))
    }
  })

  it('lets processes end by themselves', () => {
    const worker = workload(manifests, 'worker')
    const config = configOf(manifests, worker)
    expect(config.worker.drainMs).toBeGreaterThan(config.limits.defaultTimeoutMs)
    expect((worker.pod.terminationGracePeriodSeconds ?? 30) * 1000).toBeGreaterThanOrEqual(
      config.worker.drainMs + 20_000,
    )
    // The API takes ten seconds for requests that are under way, and closes its connections.
    const { pod, container } = workload(manifests, 'api')
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(
      (container.lifecycle?.preStop.sleep.seconds ?? 0) + 20,
    )
  })

  it('selects the pods that it means, each role by one budget and one controller', () => {
    const takenBy = (selector: Selector): string[] =>
      each.filter(([, { labels }]) => selects(selector, labels)).map(([component]) => component)
    const budgets = ofKind(manifests, 'PodDisruptionBudget').flatMap((one) =>
      takenBy((specOf(one) as { selector: Selector }).selector),
    )
    expect(budgets.toSorted()).toEqual(roles.toSorted())
    for (const role of roles) {
      const { manifest, pod } = workload(manifests, role)
      expect(takenBy((specOf(manifest) as { selector: Selector }).selector)).toEqual([role])
      const spread = pod['topologySpreadConstraints'] as { topologyKey: string; labelSelector: Selector }[]
      expect(spread.map(({ topologyKey }) => topologyKey)).toEqual([
        'kubernetes.io/hostname',
        'topology.kubernetes.io/zone',
      ])
      for (const { labelSelector } of spread) expect(takenBy(labelSelector)).toEqual([role])
    }
    const policies = ofKind(manifests, 'NetworkPolicy').map((one): [string, string[]] => [
      one.metadata.name,
      takenBy((specOf(one) as { podSelector: Selector }).podSelector).toSorted(),
    ])
    expect(Object.fromEntries(policies)).toEqual({
      askonce: components,
      'askonce-api': ['api'],
      'askonce-health': ['janitor', 'worker'],
      ...(example === 'production' ? { 'askonce-servers': components, 'askonce-providers': ['worker'] } : {}),
    })
  })

  it('runs everything without privileges, as the level `restricted` asks', () => {
    const { labels } = manifests.find(({ kind }) => kind === 'Namespace')?.metadata ?? {}
    expect(labels?.['pod-security.kubernetes.io/enforce']).toBe('restricted')
    const [account] = ofKind(manifests, 'ServiceAccount')
    expect(account?.['automountServiceAccountToken']).toBe(false)
    for (const [component, { pod, container }] of each) {
      expect(pod['securityContext'], component).toMatchObject({
        runAsNonRoot: true,
        runAsUser: 1000,
        seccompProfile: { type: 'RuntimeDefault' },
      })
      expect(container.securityContext, component).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      })
      expect(pod.serviceAccountName).toBe(account?.metadata.name)
      expect(pod['automountServiceAccountToken'], component).toBe(false)
      expect(Object.keys(container.resources.limits), 'throttled workers are taken for dead').toEqual(['memory'])
    }
  })

  it('gives a worker the one disk that it writes to, of its own, and never deletes it', () => {
    const { manifest, pod, container } = workload(manifests, 'worker')
    const writable = (one: Workload): string[] =>
      (one.container.volumeMounts ?? []).filter(({ readOnly }) => readOnly !== true).map(({ mountPath }) => mountPath)
    const spec = specOf(manifest) as Record<string, unknown>
    const { spoolDir } = configOf(manifests, workload(manifests, 'worker')).worker
    const [mount = ''] = writable(workload(manifests, 'worker'))
    expect(spoolDir.startsWith(`${mount}/`)).toBe(true)
    const claims = spec['volumeClaimTemplates'] as Manifest[]
    expect(claims.map(({ metadata }) => metadata.name)).toEqual([
      container.volumeMounts?.find(({ mountPath }) => mountPath === mount)?.name,
    ])
    expect(spec['persistentVolumeClaimRetentionPolicy']).toEqual({ whenDeleted: 'Retain', whenScaled: 'Retain' })
    expect(pod['securityContext']).toMatchObject({ fsGroup: 1000, fsGroupChangePolicy: 'OnRootMismatch' })
    const writing = each.filter(([, one]) => writable(one).length > 0)
    expect(writing.map(([component]) => component)).toEqual(['worker'])
    const headless = ofKind(manifests, 'Service').find(({ metadata }) => metadata.name === spec['serviceName'])
    expect((specOf(headless) as { clusterIP: string }).clusterIP).toBe('None')
  })

  it('sweeps on schedule, one sweep at a time, and ends each before the next', () => {
    const { manifest } = workload(manifests, 'sweep')
    const spec = specOf(manifest) as { schedule: string; jobTemplate: { spec: { activeDeadlineSeconds: number } } }
    const minutes = Number(/^\*\/(\d+) \* \* \* \*$/.exec(spec.schedule)?.[1])
    expect(spec.jobTemplate.spec.activeDeadlineSeconds).toBeLessThan(minutes * 60)
    expect(spec).toMatchObject({ concurrencyPolicy: 'Forbid', jobTemplate: { spec: { backoffLimit: 0 } } })
  })
})

interface Scaled {
  scaleTargetRef: Record<string, string>
  minReplicaCount: number
  maxReplicaCount: number
  advanced: { horizontalPodAutoscalerConfig: { behavior: { scaleDown: { stabilizationWindowSeconds: number } } } }
  triggers: {
    type: string
    name: string
    metricType: string
    authenticationRef: { name: string }
    metadata: { targetQueryValue: string }
  }[]
}

describe('autoscaling', () => {
  const [object] = ofKind(production, 'ScaledObject')
  const scaled = specOf(object) as Scaled
  const worker = workload(production, 'worker')

  it('scales the workers, whose number nothing else sets', () => {
    const { apiVersion, kind, metadata } = worker.manifest
    expect(scaled.scaleTargetRef).toEqual({ apiVersion, kind, name: metadata.name })
    expect(specOf(worker.manifest) as object).not.toHaveProperty('replicas')
    expect(specOf(workload(minimal, 'worker').manifest) as object).toHaveProperty('replicas', 2)
    expect(scaled.minReplicaCount).toBeGreaterThanOrEqual(1)
  })

  it('lets a worker drain before its place is wanted again', () => {
    const { stabilizationWindowSeconds } = scaled.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown
    expect(stabilizationWindowSeconds).toBeGreaterThan(worker.pod.terminationGracePeriodSeconds ?? 0)
  })

  it('asks for calls on average, with room in each worker, and for the age as it is', () => {
    const shapes = scaled.triggers.map(({ type, name, metricType }) => ({ type, name, metricType }))
    expect(shapes).toEqual([
      { type: 'postgresql', name: 'calls', metricType: 'AverageValue' },
      { type: 'postgresql', name: 'age', metricType: 'Value' },
    ])
    const [calls] = scaled.triggers
    expect(Number(calls?.metadata.targetQueryValue)).toBeLessThan(configOf(production, worker).worker.concurrency)
  })

  it('finds what it needs to ask', () => {
    const [auth] = ofKind(production, 'TriggerAuthentication')
    for (const { authenticationRef } of scaled.triggers) expect(authenticationRef.name).toBe(auth?.metadata.name)
    const refs = (specOf(auth) as { secretTargetRef: { name: string; key: string }[] }).secretTargetRef
    const secret = ofKind(production, 'Secret').find(({ metadata }) => metadata.name === refs[0]?.name)
    expect(new Set(refs.map(({ name }) => name)).size).toBe(1)
    expect(Object.keys(secret?.['stringData'] as object).toSorted()).toEqual(refs.map(({ key }) => key).toSorted())
  })
})

describe('deploy/README.md', () => {
  it('counts the connections of the example production as docs/operations.md does', () => {
    const page = readFileSync('docs/operations.md', 'utf8')
    const each = (process: string): number => {
      const row = page.split('\n').find((line) => line.startsWith(`| \`${process}\``) && /\| \**\d+\** \|/.test(line))
      return Number(row?.split('|')[4]?.replaceAll('*', ''))
    }
    const surge = (role: string): number => {
      const { replicas, strategy } = specOf(workload(production, role).manifest) as {
        replicas: number
        strategy: { rollingUpdate: { maxSurge: number } }
      }
      return replicas + strategy.rollingUpdate.maxSurge
    }
    const [object] = ofKind(production, 'ScaledObject')
    const workers = (specOf(object) as Scaled).maxReplicaCount
    const keda = Number(/create role askonce_scaler .*connection limit (\d+)/.exec(readme)?.[1])
    const sum =
      surge('api') * each('api') +
      workers * each('worker') +
      surge('janitor') * each('janitor') +
      each('askonce sweep') +
      keda
    const [, said = ''] = /^\| together \|.*\| (\d+) \|$/m.exec(readme) ?? []
    expect(Number(said)).toBe(sum)
  })

  it('names files that exist', () => {
    const named = [...readme.matchAll(/\bdeploy\/kubernetes[\w/.-]*\w/g)].map(([path]) => path)
    expect(named.length).toBeGreaterThan(3)
    expect(named.filter((path) => !existsSync(path))).toEqual([])
  })
})

describe('the check of schemas', () => {
  const spoiled: [what: string, name: string, path: string, value: unknown][] = [
    ['a type', 'StatefulSet/askonce-worker', '/revisionHistoryLimit', 'two'],
    ['a word', 'StatefulSet/askonce-worker', '/podManagementPolicy', 'AtOnce'],
    ['a lack', 'CronJob/askonce-sweep', '/schedule', undefined],
    ['a name deep inside', 'Deployment/askonce-api', '/template/spec/containers/0/readynessProbe', {}],
    ['a name of KEDA', 'ScaledObject/askonce-worker', '/maxReplicas', 3],
    ['a number for a text of KEDA', 'ScaledObject/askonce-worker', '/triggers/0/metadata/targetQueryValue', 40],
  ]

  it.each(spoiled)('finds %s that is wrong in %s', (_what, name, path, value) => {
    const manifest = copyOf(name)
    validate(manifest)
    const names = path.slice(1).split('/')
    const last = names.pop() ?? ''
    const parent = names.reduce((at, one) => (at as Record<string, object>)[one] ?? {}, specOf(manifest) as object)
    Object.assign(parent, { [last]: value })
    expect(() => validate(manifest)).toThrow(last)
  })
})

describe('the rendering', () => {
  const folder = (text: string): string => {
    const place = mkdtempSync(join(scratch, 'overlay-'))
    writeFileSync(
      join(place, 'kustomization.yaml'),
      `apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n${text}`,
    )
    writeFileSync(join(place, 'one.yaml'), 'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: one }\n')
    return place
  }

  it.each([
    ['what it does not know', 'namePrefix: a-', /namePrefix/],
    ['a file from outside, as kustomize does', 'resources: [../outside.yaml]', /from outside/],
    ['the same thing twice', 'resources: [one.yaml, ./one.yaml]', /twice/],
    [
      'a patch of nothing',
      `resources: [one.yaml]\npatches: [{ target: { kind: Secret, name: one }, patch: '[]' }]`,
      /patches 0/,
    ],
    [
      'a replacement of nothing',
      `resources: [one.yaml]\npatches: [{ target: { kind: ConfigMap, name: one }, patch: '[{ op: remove, path: /data }]' }]`,
      /has no \/data/,
    ],
  ])('refuses %s', (_what, text, complaint) => {
    writeFileSync(join(scratch, 'outside.yaml'), 'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: outside }\n')
    expect(() => render(folder(text))).toThrow(complaint)
  })
})
