/** Where a connection is set up, in the words that an operator uses. */
const places = {
  postgres: {
    server: 'PostgreSQL',
    ca: 'set sslrootcert=/path/to/ca.pem in DATABASE_URL (and DATABASE_DIRECT_URL, where it is set)',
    client: 'set sslcert=/path/to/client.crt&sslkey=/path/to/client.key in DATABASE_URL',
    plain: 'set sslmode=disable in DATABASE_URL if the network is your own, or ssl = on at the server',
    name: 'name the server in DATABASE_URL as its certificate does (sslmode=verify-ca does not compare names)',
  },
  redis: {
    server: 'Redis',
    ca: 'set ASKONCE_REDIS_CA_FILE=/path/to/ca.pem',
    client:
      'set ASKONCE_REDIS_CERT_FILE and ASKONCE_REDIS_KEY_FILE to a certificate that the server accepts, and its key',
    plain: 'set REDIS_URL to redis:// if the network is your own, or tls-port at the server',
    name: 'name the server in REDIS_URL as its certificate does',
  },
} as const

/**
 * What is wrong with the encryption of a connection that failed, and what to set; null: the failure is of another kind. None of these
 * mends itself by waiting.
 */
export function tlsAdvice(error: unknown, of: keyof typeof places): string | null {
  if (!(error instanceof Error)) return null
  const { server, ca, client, plain, name } = places[of]
  const { message } = error
  const code = (error as NodeJS.ErrnoException).code ?? ''
  if (/SELF_SIGNED|UNABLE_TO_(?:VERIFY|GET)|CERT_UNTRUSTED|INVALID_CA/.test(code)) {
    return `the certificate of ${server} comes from an authority that is not trusted here: ${ca}`
  }
  if (/^CERT_(?:HAS_EXPIRED|NOT_YET_VALID)$/.test(code)) {
    return `the certificate of ${server} has expired or is not valid yet: renew it, and compare the clocks`
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return `the certificate of ${server} is for another host: ${name}`
  if (
    /^ERR_SSL_.*ALERT_(?:UNKNOWN_CA|(?:BAD_|NO_)?CERTIFICATE|HANDSHAKE_FAILURE|DECRYPT_ERROR|ACCESS_DENIED)/.test(code)
  ) {
    return `${server} does not accept our certificate, or asks for one: ${client}`
  }
  if (/requires a valid client certificate|certificate authentication failed/.test(message)) {
    return `${server} asks for a certificate of the user: ${client}`
  }
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER' || /does not support SSL connections/.test(message)) {
    return `${server} does not speak TLS there: ${plain}`
  }
  if (/no encryption|SSL off|connection is insecure|(?:SSL|TLS).{0,40}required|sslmode=require/i.test(message)) {
    return `${server} asks for TLS: add ?sslmode=verify-full to DATABASE_URL, or ?sslmode=require, which encrypts and verifies nothing`
  }
  return null
}
