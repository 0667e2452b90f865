import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Certificate {
  readonly cert: string
  readonly key: string
}

export interface CertificateOptions {
  /** Names and addresses that it is for, as OpenSSL writes them: `DNS:localhost`, `IP:127.0.0.1`. */
  readonly for?: readonly string[]
  /** Its common name: to PostgreSQL, the user of a client. */
  readonly name?: string
  /** Negative: it has expired. */
  readonly days?: number
}

/** A private authority in a folder of its own. All its files may be read by all, keys by their owner alone. */
export interface Authority {
  /** Its own certificate. */
  readonly ca: string
  issue(options: CertificateOptions): Certificate
  /** Writes a file beside the certificates; returns its path. */
  write(name: string, text: string): string
  /** A file that one server alone may read, as PostgreSQL wants of its key: it becomes that of whoever owns `path`. */
  giveTo(path: string, file: string): string
  remove(): void
}

/** Makes an authority with the OpenSSL of the machine. */
export function createAuthority(): Authority {
  const folder = mkdtempSync(join(tmpdir(), 'askonce-certificates-'))
  chmodSync(folder, 0o755)
  const at = (name: string): string => join(folder, name)
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { stdio: 'pipe' })
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  openssl('req', '-x509', ...curve, '-keyout', at('ca.key'), '-out', at('ca.pem'), '-days', '2', '-subj', '/CN=Test CA')
  let issued = 0
  return {
    ca: at('ca.pem'),
    issue({ for: names = [], name = 'server', days = 2 }) {
      issued += 1
      const [cert, key, request, extensions] = ['crt', 'key', 'csr', 'ext'].map((end) => at(`${issued}.${end}`)) as [
        string,
        string,
        string,
        string,
      ]
      writeFileSync(extensions, names.length === 0 ? '' : `subjectAltName=${names.join(',')}\n`)
      openssl('req', '-new', ...curve, '-keyout', key, '-out', request, '-subj', `/CN=${name}`)
      const signer = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial']
      openssl('x509', '-req', '-in', request, ...signer, '-days', String(days), '-extfile', extensions, '-out', cert)
      return { cert, key }
    },
    write(name, text) {
      writeFileSync(at(name), text)
      return at(name)
    },
    giveTo(path, file) {
      const { uid, gid } = statSync(path)
      chownSync(file, uid, gid)
      chmodSync(file, 0o600)
      return file
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}
