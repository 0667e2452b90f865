import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { freePort } from '@askonce/embedded'
import { prepareLaunch } from './launched.ts'
import { findHttpProxy, findOpenssl, track, type HttpProxyName } from './servers.ts'

export interface TestHttpProxyOptions {
  readonly name: HttpProxyName
  /** Path of the configuration, written for the two addresses and the names that {@link startTestHttpProxy} replaces. */
  readonly snippet: string
  /** Ports of the two servers behind it. */
  readonly ports: readonly [number, number]
}

/** A private reverse proxy with TLS on a port of its own. */
export interface TestHttpProxy {
  readonly name: HttpProxyName
  /** `https://127.0.0.1:port` */
  readonly url: string
  readonly port: number
  /** Path of the certificate that it shows, to be trusted by clients. */
  readonly certificate: string
  /** Stops it and removes its folder. Safe to call twice. */
  stop(): Promise<void>
}

/** Starts a proxy with a snippet in which only addresses, the port and paths are replaced. It must be stopped by the end of the test file, see leakCheck. */
export async function startTestHttpProxy({ name, snippet, ports }: TestHttpProxyOptions): Promise<TestHttpProxy> {
  const program = findHttpProxy(name)
  const folder = mkdtempSync(join(tmpdir(), `askonce-${name}-`))
  const port = await freePort()
  const certificate = makeCertificate(folder)
  const file = join(folder, basename(snippet))
  writeFileSync(file, substituted(readFileSync(snippet, 'utf8'), folder, port, ports))
  const launched = prepareLaunch({ name, program, ...commandOf(name, folder, file) })
  const stop = async (): Promise<void> => {
    await launched.down('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
    untrack()
  }
  const pids = (): number[] => (launched.pid === 0 ? [] : [launched.pid])
  const untrack = track({ what: `${name} in ${folder}`, pids, folder, stop })
  try {
    await launched.up()
  } catch (error) {
    await stop()
    throw error
  }
  return { name, url: `https://127.0.0.1:${port}`, port, certificate, stop }
}

function substituted(text: string, folder: string, port: number, [one, two]: readonly [number, number]): string {
  const pairs: readonly (readonly [string | RegExp, string])[] = [
    ['10.0.0.11:8787', `127.0.0.1:${one}`],
    ['10.0.0.12:8787', `127.0.0.1:${two}`],
    ['/etc/ssl/askonce/', `${folder}/`],
    ['/etc/haproxy/', `${folder}/`],
    ['listen 443', `listen 127.0.0.1:${port}`],
    ['bind :443', `bind 127.0.0.1:${port}`],
    [/^host\.example\.com \{/gm, `https://127.0.0.1:${port} {`],
  ]
  return pairs.reduce((so, [from, to]) => so.replaceAll(from, to), text)
}

/** What runs a snippet as a process of this user that stays in the foreground. */
function commandOf(name: HttpProxyName, folder: string, file: string): { args: string[]; ready: RegExp } {
  const write = (base: string, text: string): string => {
    const path = join(folder, base)
    writeFileSync(path, text)
    return path
  }
  switch (name) {
    case 'nginx': {
      const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
        (kind) => `${kind}_temp_path ${folder}/${kind};`,
      )
      const main = `daemon off; master_process off; pid ${folder}/pid; error_log stderr notice;
events { worker_connections 4096; }
http { access_log off; ${temporary.join(' ')} include ${file}; }
`
      return { args: ['-p', folder, '-e', 'stderr', '-c', write('main.conf', main)], ready: /start|epoll/ }
    }
    case 'haproxy':
      return { args: ['-db', '-V', '-f', file], ready: /Available polling|Using \w+\(\) as the polling/ }
    case 'caddy': {
      const options = `{
	admin off
	auto_https disable_redirects
	default_bind 127.0.0.1
	storage file_system ${folder}
}
import ${file}
`
      const main = write('main', options)
      return { args: ['run', '--adapter', 'caddyfile', '--config', main], ready: /serving initial configuration/ }
    }
  }
}

/** Of 127.0.0.1, with its key beside it, and both in one file as HAProxy takes them. */
function makeCertificate(folder: string): string {
  const [certificate, key] = [join(folder, 'certificate.pem'), join(folder, 'key.pem')]
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost']
  const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
  execFileSync(findOpenssl(), [...made, ...subject, '-keyout', key, '-out', certificate], { stdio: 'pipe' })
  writeFileSync(join(folder, 'askonce.pem'), readFileSync(certificate, 'utf8') + readFileSync(key, 'utf8'))
  return certificate
}
