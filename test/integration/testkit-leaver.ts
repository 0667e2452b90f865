import { startTestPostgres, startTestRedis } from '@askonce/testkit'

/** A test process that is killed with servers running; with the argument `env`, one that shows its environment. */
if (process.argv[2] === 'env') {
  process.stdout.write(`env ${Object.keys(process.env).join(',')}\n`)
} else {
  const [postgres, redis] = await Promise.all([startTestPostgres({ flavour: 'embedded' }), startTestRedis()])
  process.stdout.write(`left ${postgres.pid} ${redis.pid}\n`)
}
