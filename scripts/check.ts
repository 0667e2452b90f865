import { gates, runGate } from './gates.ts'

// All gates run even if one fails: whoever broke two wants to know both. With names as arguments, only those.
const asked = process.argv.slice(2)
const unknown = asked.filter((name) => !gates.some((gate) => gate.name === name))
if (unknown.length > 0) {
  console.error(`no such gate: ${unknown.join(', ')}. There are ${gates.map(({ name }) => name).join(', ')}.`)
  process.exit(2)
}

const failed: string[] = []
for (const gate of gates.filter(({ name }) => asked.length === 0 || asked.includes(name))) {
  const started = performance.now()
  const { looked, problems } = runGate(gate, process.cwd())
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  console.log(`${problems.length === 0 ? 'ok    ' : 'FAILED'} ${gate.name.padEnd(14)} ${looked} files, ${seconds} s`)
  for (const problem of problems) console.log(problem.replaceAll(/^/gm, '  '))
  if (problems.length > 0) failed.push(gate.name)
}
if (failed.length > 0) console.log(`\nfailed: ${failed.join(', ')}`)
process.exitCode = failed.length > 0 ? 1 : 0
