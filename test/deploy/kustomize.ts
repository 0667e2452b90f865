import { readFileSync, statSync } from 'node:fs'
import { join, normalize } from 'node:path'
import { parse, parseAllDocuments } from 'yaml'
import { z } from 'zod'

// What `kubectl kustomize` makes of deploy/kubernetes, as far as those files use it: neither kubectl nor kustomize is where tests run.
// Everything that they do not use is refused, so that the files cannot ask for what is not rendered here.

export interface Manifest {
  apiVersion: string
  kind: string
  metadata: { name: string; namespace?: string; labels?: Record<string, string> }
  [member: string]: unknown
}

const operations = z.array(
  z.strictObject({
    op: z.enum(['add', 'replace', 'remove']),
    path: z.string().startsWith('/'),
    value: z.unknown().optional(),
  }),
)
type Operation = z.infer<typeof operations>[number]

const kustomization = z.strictObject({
  apiVersion: z.string().startsWith('kustomize.config.k8s.io/'),
  kind: z.enum(['Kustomization', 'Component']),
  namespace: z.string().optional(),
  resources: z.array(z.string()).default([]),
  components: z.array(z.string()).default([]),
  images: z
    .array(z.strictObject({ name: z.string(), newName: z.string().optional(), newTag: z.string().optional() }))
    .default([]),
  patches: z
    .array(z.strictObject({ target: z.strictObject({ kind: z.string(), name: z.string() }), patch: z.string() }))
    .default([]),
})
type Image = z.infer<typeof kustomization>['images'][number]

const clusterWide = new Set(['Namespace'])

/** Everything that the kustomization in `folder` makes, in its order. Throws on what kustomize refuses or what is not rendered here. */
export function render(folder: string): Manifest[] {
  return renderInto(folder, [], 'Kustomization')
}

function renderInto(folder: string, given: Manifest[], kind: 'Kustomization' | 'Component'): Manifest[] {
  const file = kustomization.parse(parse(readFileSync(join(folder, 'kustomization.yaml'), 'utf8')))
  if (file.kind !== kind) throw new Error(`${folder} is a ${file.kind}, and used as a ${kind}`)
  const made = file.resources.flatMap((path) => resource(folder, path))
  const start = [...given, ...made]
  const all = file.components.reduce((before, path) => renderInto(join(folder, path), before, 'Component'), start)
  for (const { target, patch } of file.patches) {
    const meant = all.filter((one) => one.kind === target.kind && one.metadata.name === target.name)
    if (meant.length !== 1) throw new Error(`${folder} patches ${meant.length} of ${target.kind} ${target.name}`)
    for (const operation of operations.parse(parse(patch))) change(meant[0] as Manifest, operation)
  }
  for (const one of all) {
    if (file.namespace !== undefined && !clusterWide.has(one.kind)) one.metadata.namespace = file.namespace
    setImages(one, file.images)
  }
  const names = all.map(nameOf)
  const twice = names.find((name, index) => names.indexOf(name) < index)
  if (twice !== undefined) throw new Error(`${folder} has ${twice} twice`)
  return all
}

/** `Kind/name`. */
export function nameOf({ kind, metadata }: Manifest): string {
  return `${kind}/${metadata.name}`
}

function resource(folder: string, path: string): Manifest[] {
  const at = normalize(join(folder, path))
  if (statSync(at).isDirectory()) return render(at)
  if (normalize(path).startsWith('..')) throw new Error(`${folder} takes a file from outside: ${path}`)
  return parseAllDocuments(readFileSync(at, 'utf8')).map((document) => {
    if (document.errors[0] !== undefined) throw document.errors[0]
    return document.toJS() as Manifest
  })
}

/** One operation of RFC 6902. */
function change(manifest: Manifest, { op, path, value }: Operation): void {
  const names = path
    .slice(1)
    .split('/')
    .map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'))
  const last = names.pop() as string
  const parent = names.reduce<unknown>((at, name) => (at as Record<string, unknown> | undefined)?.[name], manifest)
  if (typeof parent !== 'object' || parent === null) throw new Error(`${nameOf(manifest)} has no ${path}`)
  if (Array.isArray(parent)) {
    if (op !== 'add' || last !== '-') throw new Error(`only appending to a list is rendered here: ${path}`)
    parent.push(value)
    return
  }
  const members = parent as Record<string, unknown>
  if (op !== 'add' && !(last in members)) throw new Error(`${nameOf(manifest)} has no ${path}`)
  if (op === 'remove') delete members[last]
  else members[last] = value
}

function setImages(value: unknown, images: readonly Image[]): void {
  if (typeof value !== 'object' || value === null) return
  const { image } = value as { image?: unknown }
  if (typeof image === 'string') {
    const [, name = '', tag] = /^(.*?)(?::([^/:]*))?$/.exec(image) ?? []
    const found = images.find((one) => one.name === name)
    const newTag = found?.newTag ?? tag
    if (found !== undefined) {
      Object.assign(value, { image: `${found.newName ?? name}${newTag === undefined ? '' : `:${newTag}`}` })
    }
  }
  for (const inner of Object.values(value)) setImages(inner, images)
}
