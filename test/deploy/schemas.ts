import { ScaledObject, TriggerAuthentication } from '@kubernetes-models/keda/keda.sh/v1alpha1'
import { Deployment, StatefulSet } from 'kubernetes-models/apps/v1'
import { CronJob, Job } from 'kubernetes-models/batch/v1'
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1'
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1'
import { ConfigMap, Namespace, Secret, Service, ServiceAccount } from 'kubernetes-models/v1'
import { nameOf, type Manifest } from './kustomize.ts'

interface Model {
  apiVersion: string
  kind: string
  prototype: { validate: () => void }
}

const models: readonly Model[] = [
  ConfigMap,
  CronJob,
  Deployment,
  Job,
  Namespace,
  NetworkPolicy,
  PodDisruptionBudget,
  ScaledObject,
  Secret,
  Service,
  ServiceAccount,
  StatefulSet,
  TriggerAuthentication,
]

/**
 * Checks a manifest against the schema of its kind. The schemas, like those of a cluster, let members pass that they do not know;
 * `kubectl apply` warns of them at best. The validators read every member that they know, so one that nobody read is unknown.
 *
 * Throws with the validator's words, or with the paths that no schema knows.
 */
export function validate(manifest: Manifest): void {
  const { apiVersion, kind } = manifest
  const model = models.find((one) => one.apiVersion === apiVersion && one.kind === kind)
  if (model === undefined) throw new Error(`no schema of ${apiVersion} ${kind}`)
  const unread = new Set<string>()
  model.prototype.validate.call(watched(manifest, '', unread))
  if (unread.size > 0) throw new Error(`${nameOf(manifest)}: no schema knows ${[...unread].join(', ')}`)
}

/** The same value; `unread` holds the paths that nobody has asked it for. */
function watched<Value>(value: Value, path: string, unread: Set<string>): Value {
  if (typeof value !== 'object' || value === null) return value
  const members = new Map<string | symbol, unknown>()
  for (const [name, inner] of Object.entries(value)) {
    members.set(name, watched(inner, `${path}/${name}`, unread))
    unread.add(`${path}/${name}`)
  }
  return new Proxy(value, {
    get(target, name) {
      if (typeof name === 'string') unread.delete(`${path}/${name}`)
      return members.has(name) ? members.get(name) : Reflect.get(target, name)
    },
  })
}
