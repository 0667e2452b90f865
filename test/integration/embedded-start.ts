import { setTimeout as sleep } from 'node:timers/promises'
import { EmbeddedPostgresError, startEmbedded, withClient } from '@askonce/embedded'

/**
 * What `askonce start` does with the embedded database, as a process to be killed. Argument: the data directory. Prints
 * `progress …`, then `ready <pid of the postmaster> <took over> <url>` or `refused <code> <message>`. On SIGINT it still
 * uses the database for a while, as a drain does.
 */
const [dataDir = ''] = process.argv.slice(2)
const say = (line: string): void => void process.stdout.write(`${line}\n`)

try {
  const embedded = await startEmbedded({ dataDir, onProgress: (text) => say(`progress ${text}`), log: say })
  embedded.owner.update({ address: `http://127.0.0.1:${process.pid}` })
  const stay = setInterval(() => {}, 1_000)
  process.once('SIGINT', () => {
    const drain = async (): Promise<void> => {
      await sleep(300)
      await withClient(embedded.url, 1_000, async (client) => void (await client.query('select 1')))
      say('drained')
      await embedded.stop()
      clearInterval(stay)
    }
    void drain()
  })
  say(`ready ${embedded.pid} ${embedded.tookOver} ${embedded.url}`)
} catch (error) {
  if (!(error instanceof EmbeddedPostgresError)) throw error
  say(`refused ${error.code} ${error.message}`)
}
