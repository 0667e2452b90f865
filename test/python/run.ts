import { spawn } from 'node:child_process'
import { startUpstream } from '@askonce/testkit'
import { apiKey, startRunning } from '../contract/sdk/running.ts'
import { preparePython } from './environment.ts'

// Runs pytest against the whole of Askonce, on real servers, and the counting upstream. Arguments go to pytest.

const python = await preparePython()
const upstream = await startUpstream()
const askonce = await startRunning({ openai: `${upstream.url}/v1`, anthropic: upstream.url })
try {
  process.exitCode = await pytest()
} finally {
  await askonce.stop()
  await upstream.close()
}

async function pytest(): Promise<number> {
  const args = ['-m', 'pytest', '-p', 'no:cacheprovider', '--strict-markers', '-rA', '--tb=short', '--durations=3']
  const child = spawn(python, [...args, import.meta.dirname, ...process.argv.slice(2)], {
    env: {
      PATH: process.env['PATH'],
      HOME: process.env['HOME'],
      PYTHONDONTWRITEBYTECODE: '1',
      ASKONCE: askonce.address,
      ASKONCE_API_KEY: apiKey,
      UPSTREAM: upstream.url,
    },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve(code ?? 1))
  })
}
