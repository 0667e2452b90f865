import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

interface CpuProfile {
  nodes: readonly { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[]
  samples: readonly number[]
  timeDeltas: readonly number[]
}

const shown = 15

/** Prints what the servers did, and, for each profile in the folder, the functions and the packages that took most of the time that was not idle. */
export function printProfiles(folder: string, say: (text: string) => void): void {
  for (const name of readdirSync(folder).filter((file) => /^servers-.*\.txt$/.test(file))) {
    say(`${name}:\n${readFileSync(join(folder, name), 'utf8').trimEnd()}`)
  }
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.cpuprofile'))) {
    const profile = JSON.parse(readFileSync(join(folder, name), 'utf8')) as CpuProfile
    const frames = new Map(profile.nodes.map(({ id, callFrame }) => [id, callFrame]))
    const byFunction = new Map<string, number>()
    const byPackage = new Map<string, number>()
    let busy = 0
    for (const [index, id] of profile.samples.entries()) {
      const frame = frames.get(id)
      if (frame === undefined || frame.functionName === '(idle)' || frame.functionName === '(root)') continue
      const us = profile.timeDeltas[index] ?? 0
      busy += us
      const place = placeOf(frame.url)
      add(byPackage, frame.url === '' ? frame.functionName || 'native' : place, us)
      add(byFunction, `${frame.functionName || '(anonymous)'} ${place}:${frame.lineNumber + 1}`, us)
    }
    say(`${name}: busy for ${Math.round(busy / 1000)} ms`)
    for (const [title, costs] of [
      ['packages', byPackage],
      ['functions', byFunction],
    ] as const) {
      say(`  ${title}`)
      const top = [...costs].toSorted(([, a], [, b]) => b - a).slice(0, shown)
      for (const [what, us] of top) say(`  ${((us / busy) * 100).toFixed(1).padStart(6)} %  ${what}`)
    }
  }
}

function add(costs: Map<string, number>, what: string, us: number): void {
  costs.set(what, (costs.get(what) ?? 0) + us)
}

/** A package, one of our files, or a module of Node. */
function placeOf(url: string): string {
  const library = /\/node_modules\/(?!\.cache)((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1]
  if (library !== undefined && !library.startsWith('@askonce')) return library
  const own = /\/((?:apps|packages)\/[^/]+\/src\/.*|src\/.*|[^/]+)$/.exec(url)?.[1]
  return url.startsWith('node:') ? url : (own ?? url)
}
