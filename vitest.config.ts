import { defineConfig } from 'vitest/config'

// Tests decide themselves what they talk to: nobody's own servers or provider keys may leak into a run.
for (const name of Object.keys(process.env)) {
  const ours =
    /^(?:ASKONCE_(?!TEST_)|OPENAI_|ANTHROPIC_)|^(?:DATABASE_URL|DATABASE_DIRECT_URL|REDIS_URL|HOST|PORT|LOG_LEVEL|PG[A-Z]+)$/
  if (ours.test(name)) delete process.env[name]
}

const source = (path: string): string => new URL(`packages/client/src/${path}`, import.meta.url).pathname

export default defineConfig({
  // As tsconfig.json has it: the published package names its built files.
  resolve: {
    alias: [
      { find: '@askonce/client/node', replacement: source('node/index.ts') },
      { find: '@askonce/client', replacement: source('index.ts') },
    ],
  },
  test: {
    // A failure is looked at, never repeated until it passes; a focused test is no run.
    retry: 0,
    allowOnly: false,
    projects: [
      {
        extends: true,
        test: { name: 'unit', include: ['test/unit/**/*.test.ts'] },
      },
      {
        extends: true,
        // Stock clients that are installed by a command of their own: npm run test:clients.
        test: { name: 'clients', include: ['test/clients/*.test.ts'], testTimeout: 120_000, hookTimeout: 120_000 },
      },
      {
        extends: true,
        test: {
          name: 'servers',
          include: ['test/{integration,contract,cli,fault}/**/*.test.ts'],
          globalSetup: 'test/prepare-servers.ts',
          // Each file starts servers of its own, and mostly waits for leases and restarts: two at a time, on any machine, so
          // that what a file meets does not depend on how many cores there are. After the unit tests.
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
})
