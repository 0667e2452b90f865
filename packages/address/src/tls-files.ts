import { readFileSync } from 'node:fs'
import { createSecureContext, type SecureContextOptions } from 'node:tls'

/** PEM files of a connection with TLS, each under the name of the parameter or variable that it was given by. */
export interface TlsFiles {
  /** The authorities that the server's certificate may come from; null: those that Node trusts. */
  readonly ca: NamedFile | null
  /** The certificate that we show the server, and its key. */
  readonly client: { readonly cert: NamedFile; readonly key: NamedFile; readonly passphrase?: string } | null
}

export interface NamedFile {
  readonly path: string
  readonly from: string
}

/** A file of an address that cannot be used. The message names the parameter and the path. */
export class TlsFileError extends Error {
  override readonly name = 'TlsFileError'
}

/**
 * What Node's TLS is given of these files.
 *
 * @throws TlsFileError when one cannot be read, or is not what its name says.
 */
export function readTlsFiles({ ca, client }: TlsFiles): SecureContextOptions {
  const options: SecureContextOptions = {}
  if (ca !== null) {
    options.ca = read(ca)
    if (!/-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----/.test(options.ca)) {
      throw new TlsFileError(`${ca.from} names ${ca.path}, which holds no certificate in PEM format`)
    }
    verify(options, `${ca.from} names ${ca.path}, which does not hold certificates in PEM format`)
  }
  if (client !== null) {
    const { cert, key, passphrase } = client
    options.cert = read(cert)
    options.key = read(key)
    if (passphrase !== undefined) options.passphrase = passphrase
    const wrong = `${cert.from} and ${key.from} name ${cert.path} and ${key.path}, which are not a certificate and its key in PEM format${passphrase === undefined ? ' (a key with a passphrase needs it too)' : ', or the passphrase of the key is another'}`
    // An empty key would count as none.
    if (!/-----BEGIN .*PRIVATE KEY-----/.test(options.key)) throw new TlsFileError(wrong)
    verify(options, wrong)
  }
  return options
}

function read({ path, from }: NamedFile): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new TlsFileError(`${from} names ${path}, which cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
}

/** OpenSSL's own words are no help, and tell more than is needed. */
function verify(options: SecureContextOptions, message: string): void {
  try {
    createSecureContext(options)
  } catch {
    throw new TlsFileError(message)
  }
}
