import { connectionsWithin, filesOfApi, filesOfWorker, loadConfig, openFilesLimit } from '@askonce/config'
import { describe, expect, it } from 'vitest'

describe('the limit of open files', () => {
  const config = loadConfig({})

  it('is that of this process', () => {
    expect(openFilesLimit()).toBeGreaterThan(0)
  })

  it('leaves all connections where there is room, and room for everything else where there is not', () => {
    expect(connectionsWithin(null, config)).toBe(10_000)
    expect(connectionsWithin(filesOfApi(config) + filesOfWorker(config), config)).toBe(10_000)
    const within = connectionsWithin(2_000, config)
    expect(within + (filesOfApi(config) - 10_000) + filesOfWorker(config)).toBe(2_000)
    expect(connectionsWithin(256, config)).toBe(128)
  })
})
