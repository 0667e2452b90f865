import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { EmbeddedPostgresError } from './errors.ts'

/** The user a server runs as; `ids` is empty when that is simply the current user. */
export interface RunAs {
  readonly ids: { readonly uid?: number; readonly gid?: number }
  readonly name: string
}

/**
 * Decides who runs the server. PostgreSQL refuses root, so for root it is the owner of the existing cluster, else the
 * user `postgres` (made with useradd where it is missing), else `nobody`. For anybody else it is the current user.
 */
export function chooseUser(clusterDir: string): RunAs {
  if (process.getuid?.() !== 0) return { ids: {}, name: 'the current user' }
  const owner = ownerOf(clusterDir)
  if (owner) return owner
  const user = find('postgres') ?? create() ?? find('nobody')
  if (user) return user
  throw new EmbeddedPostgresError(
    'no_permission',
    'PostgreSQL refuses to run as root, there is no user "postgres" or "nobody" to run it as, and useradd could not make ' +
      'one. Start as an ordinary user, add a user "postgres", or set DATABASE_URL to use your own PostgreSQL',
  )
}

function ownerOf(clusterDir: string): RunAs | undefined {
  // The file, not the folder: an empty folder of root's, such as a mounted volume, is filled later.
  const stat = statSync(join(clusterDir, 'PG_VERSION'), { throwIfNoEntry: false })
  if (!stat) return undefined
  if (stat.uid !== 0) return { ids: { uid: stat.uid, gid: stat.gid }, name: `user id ${stat.uid}` }
  throw new EmbeddedPostgresError(
    'no_permission',
    `${clusterDir} belongs to root, and PostgreSQL refuses to run as root. Give it to the user it ran as before, ` +
      `for instance: chown -R postgres ${clusterDir}`,
  )
}

// Read from the file, not through `id` or `getent`, which small images lack. Users of a directory service are not seen.
function find(name: string): RunAs | undefined {
  if (!existsSync('/etc/passwd')) return undefined
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [user, , uid, gid] = line.split(':')
    if (user === name && Number(uid) > 0) return { ids: { uid: Number(uid), gid: Number(gid) }, name }
  }
  return undefined
}

function create(): RunAs | undefined {
  try {
    const quiet = { stdio: 'ignore' } as const
    const useradd = ['--system', '--user-group', '--no-create-home', '--home-dir', '/nonexistent']
    execFileSync('useradd', [...useradd, '--shell', '/usr/sbin/nologin', 'postgres'], quiet)
  } catch {
    return undefined
  }
  return find('postgres')
}
