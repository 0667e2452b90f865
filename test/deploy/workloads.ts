import { readFileSync } from 'node:fs'
import type { Manifest } from './kustomize.ts'

type Labels = Record<string, string>

export interface Selector {
  matchLabels?: Labels
  matchExpressions?: { key: string; operator: string; values: string[] }[]
}

interface Probe {
  httpGet: { path: string; port: string }
  periodSeconds?: number
  timeoutSeconds?: number
  failureThreshold?: number
}

export interface Container {
  image: string
  args: string[]
  envFrom: { configMapRef?: { name: string }; secretRef?: { name: string } }[]
  env?: { name: string; value?: string; valueFrom?: { secretKeyRef: { name: string; key: string } } }[]
  ports?: { name: string; containerPort: number }[]
  startupProbe?: Probe
  readinessProbe?: Probe
  livenessProbe?: Probe
  lifecycle?: { preStop: { sleep: { seconds: number } } }
  volumeMounts?: { name: string; mountPath: string; readOnly?: boolean }[]
  securityContext: Record<string, unknown>
  resources: { requests: Record<string, string>; limits: Record<string, string> }
}

export interface PodSpec {
  serviceAccountName: string
  terminationGracePeriodSeconds?: number
  volumes?: { name: string; configMap: { name: string } }[]
  containers: [Container]
  [member: string]: unknown
}

/** What a controller runs: its pod's labels and shape. */
export interface Workload {
  manifest: Manifest
  labels: Labels
  pod: PodSpec
  container: Container
}

interface Template {
  metadata: { labels: Labels }
  spec: PodSpec
}

/** The spec of a manifest, for the caller to say what it is. */
export function specOf(manifest: Manifest | undefined): unknown {
  if (manifest?.['spec'] === undefined) throw new Error(`no spec: ${manifest?.metadata.name}`)
  return manifest['spec']
}

/** Manifests of a kind. */
export function ofKind(manifests: readonly Manifest[], kind: string): Manifest[] {
  return manifests.filter((one) => one.kind === kind)
}

/** Every controller of pods, by its component: api, janitor, migrate, sweep, worker. */
export function workloadsOf(manifests: readonly Manifest[]): Map<string, Workload> {
  const found = manifests
    .filter(({ kind }) => ['Deployment', 'StatefulSet', 'Job', 'CronJob'].includes(kind))
    .map((manifest): [string, Workload] => {
      const spec = specOf(manifest) as { template?: Template; jobTemplate?: { spec: { template: Template } } }
      const template = spec.template ?? spec.jobTemplate?.spec.template
      if (template === undefined) throw new Error(`no pod: ${manifest.metadata.name}`)
      const { containers } = template.spec
      const { labels } = template.metadata
      return [
        labels['app.kubernetes.io/component'] ?? '',
        { manifest, labels, pod: template.spec, container: containers[0] },
      ]
    })
  return new Map(found)
}

/** Whether a selector takes a pod with these labels. */
export function selects({ matchLabels = {}, matchExpressions = [] }: Selector, labels: Labels): boolean {
  const equal = Object.entries(matchLabels).every(([name, value]) => labels[name] === value)
  return (
    equal &&
    matchExpressions.every(({ key, operator, values }) => {
      if (operator !== 'In') throw new Error(`not looked at here: ${operator}`)
      return values.includes(labels[key] ?? '')
    })
  )
}

/** The variables that the process sees: of the image, of ConfigMap and Secret, of its own. Throws for a reference that leads nowhere. */
export function environmentOf(manifests: readonly Manifest[], { container }: Workload): Record<string, string> {
  const env: Record<string, string> = {}
  const dockerfile = readFileSync('Dockerfile', 'utf8')
  for (const [, key = '', value = ''] of dockerfile.matchAll(/\b([A-Z_]+)=(\S+)/g)) env[key] = value
  const dataOf = (kind: string, name: string): Record<string, string> => {
    const found = ofKind(manifests, kind).find(({ metadata }) => metadata.name === name)
    if (found === undefined) throw new Error(`no ${kind} ${name}`)
    return (found['data'] ?? found['stringData']) as Record<string, string>
  }
  for (const { configMapRef, secretRef } of container.envFrom) {
    if (configMapRef !== undefined) Object.assign(env, dataOf('ConfigMap', configMapRef.name))
    if (secretRef !== undefined) Object.assign(env, dataOf('Secret', secretRef.name))
  }
  for (const { name, value, valueFrom } of container.env ?? []) {
    const from = valueFrom?.secretKeyRef
    const given = from === undefined ? value : dataOf('Secret', from.name)[from.key]
    if (given === undefined) throw new Error(`no value of ${name}`)
    env[name] = given
  }
  return env
}
