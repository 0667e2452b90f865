// Preloaded into a process that is to be profiled (`node --cpu-prof` cannot be asked for through NODE_OPTIONS).
// Environment: BENCH_PROFILE, the file that the profile is written to when the process ends by itself.
import { writeFileSync } from 'node:fs'
import { Session } from 'node:inspector'
import process from 'node:process'

const file = process.env['BENCH_PROFILE']
if (file !== undefined) {
  const session = new Session()
  session.connect()
  session.post('Profiler.enable')
  session.post('Profiler.start')
  process.once('exit', () => {
    // Answered before it returns: the session is of this thread.
    session.post('Profiler.stop', (_, { profile }) => writeFileSync(file, JSON.stringify(profile)))
  })
}
