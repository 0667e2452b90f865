/** What a code in a `reason` says to an operator. */
export interface CodeMeaning {
  /** Half a sentence. */
  meaning: string
  /** A whole one. */
  todo: string
}

interface CodeGroup {
  title: string
  codes: Readonly<Record<string, readonly [meaning: string, todo: string]>>
}

/** The codes that an operator meets, by where they come from. docs/reasons.md is made of this. */
const groups: readonly CodeGroup[] = [
  {
    title: 'Redis: the first word of its refusal',
    codes: {
      WRONGPASS: [
        'user or password is wrong, or the user is switched off',
        'correct both in REDIS_URL (percent-encode special characters); `ACL GETUSER name` shows whether the user is on',
      ],
      NOAUTH: ['Redis asks for a password and REDIS_URL has none', 'put user and password into REDIS_URL'],
      DENIED: [
        'Redis is in protected mode and takes connections from its own machine only',
        'give its users passwords, or bind it to the right address; then `protected-mode no`',
      ],
      NOPERM: [
        'the user may not run a command, or not on these keys',
        '`askonce doctor` names the command; `ACL LOG` on the server shows what was refused',
      ],
      READONLY: [
        'the server is a replica and takes no writes',
        'let REDIS_URL name the primary, or use the form redis+sentinel://, which follows it',
      ],
      OOM: [
        'Redis has reached maxmemory and refuses writes',
        'raise maxmemory, or remove what else lives there; jobs wait in Postgres meanwhile',
      ],
      LOADING: ['Redis reads its data after a start', 'wait; it ends by itself'],
      MISCONF: [
        'Redis cannot save to its disk and refuses writes',
        'look at its log and its disk: full, or not writable',
      ],
      NOREPLICAS: [
        'fewer replicas are connected than min-replicas-to-write asks for, so Redis refuses writes',
        'bring the replicas back, or lower min-replicas-to-write',
      ],
      MASTERDOWN: [
        'the server is a replica that has lost its primary',
        'bring the primary back, or let REDIS_URL name another server',
      ],
      CLUSTERDOWN: [
        'the cluster has slots that no node serves',
        '`redis-cli --cluster check host:port`, and bring the nodes back',
      ],
      MOVED: [
        'the server is a node of a cluster, and REDIS_URL names it as a single server',
        'use the form redis+cluster://host:port,host:port',
      ],
      BUSY: ['a script on the server runs for too long', 'another program’s script: `SCRIPT KILL`, or wait'],
      NOSCRIPT: ['the server has forgotten a script, as after a restart', 'nothing: it is sent again'],
      UNBLOCKED: ['the server ended a waiting command, as in a failover', 'nothing: it is asked again'],
      NOTREADY: ['the server is starting or changing its role', 'wait'],
      ERR: [
        'Redis refused a command for another reason: unknown or renamed, a database number that does not exist, too many clients',
        '`askonce doctor` finds out which',
      ],
    },
  },
  {
    title: 'PostgreSQL: SQLSTATE',
    codes: {
      '08006': ['the connection to Postgres broke', 'look at the server and the network; everything reconnects'],
      '22P05': [
        'the encoding of the database has no such character',
        'the database must have the encoding UTF8: dump it, create it anew with it, restore',
      ],
      '25006': [
        'the sessions are read-only: the server is a standby, or default_transaction_read_only is on',
        '`askonce doctor` says which of the two, and what to do; after a failover the address has to follow the primary',
      ],
      '28000': [
        'the login is not allowed',
        'does the role exist, may it log in, and does pg_hba.conf let it in from this address, with TLS or without?',
      ],
      '28P01': [
        'user or password is wrong',
        'correct them in DATABASE_URL, and in DATABASE_DIRECT_URL if it is set; what an address cannot hold as it is (/ # @ : %) is percent-encoded',
      ],
      '3D000': [
        'the database does not exist',
        "create it (create database NAME encoding 'UTF8' template template0;), or correct its name in DATABASE_URL",
      ],
      '3F000': ['the schema does not exist', 'create it, or correct the search_path of the role'],
      '40001': ['two transactions met', 'nothing: it is tried again'],
      '40P01': ['two transactions waited for each other', 'nothing: it is tried again'],
      '42501': [
        'the role lacks a privilege',
        '`askonce doctor` names it; `askonce grants --role NAME` prints what the processes need, `--migrator NAME` what `askonce migrate` needs',
      ],
      '42P01': ['a table is missing', 'run: askonce migrate'],
      '53100': [
        'the disk of PostgreSQL is full',
        'make room on it, or enlarge it: everything goes on by itself then, and accepted jobs are safe; `askonce sweep` frees space only inside of the database',
      ],
      '53200': ['PostgreSQL is out of memory', 'give it more, or lower shared_buffers, work_mem or max_connections'],
      '53300': [
        'too many connections',
        'close others, raise the limit of the server, role or database, lower ASKONCE_DATABASE_POOL, or put a pooler in between',
      ],
      '53400': ['a limit in the configuration of Postgres is reached', 'its log names the limit'],
      '55P03': ['a lock was not free within lock_timeout', 'nothing if it is rare; else look who holds it: pg_locks'],
      '57014': [
        'a statement was cancelled: statement_timeout, or by a person',
        'nothing if it is rare; else see what slows Postgres down',
      ],
      '57P01': [
        'PostgreSQL is being shut down, or an administrator ended the connection',
        'start it again; everything reconnects by itself',
      ],
      '57P02': ['PostgreSQL restarts after a crash', 'wait; its log says why it crashed'],
      '57P03': ['PostgreSQL is starting up or shutting down', 'wait; its log says what takes so long'],
      '57P05': ['Postgres ended a session that was idle', 'nothing: it reconnects'],
      '58030': ['PostgreSQL cannot read or write its disk', 'look at its log and at the disk'],
    },
  },
  {
    title: 'Operating system and network',
    codes: {
      ECONNREFUSED: ['nothing listens at the address', 'is the server running, and are host and port right?'],
      ECONNRESET: [
        'the other side broke the connection',
        'a restart, or a proxy or firewall in between; a port that speaks another protocol also does this',
      ],
      EPIPE: ['the other side has closed the connection', 'as ECONNRESET'],
      ETIMEDOUT: ['the address does not answer', 'a firewall, a wrong address, or a machine that is gone'],
      ENOTFOUND: ['the host name is unknown', 'correct it, or look at the DNS'],
      EAI_AGAIN: ['the DNS does not answer', 'look at the resolver of this machine'],
      EHOSTUNREACH: ['there is no way to the host', 'look at routes and firewalls'],
      ENETUNREACH: ['there is no way to the network', 'look at routes and firewalls'],
      ENOENT: ['a file or socket does not exist', 'correct the path'],
      EACCES: ['no permission for a file or port', 'give the user of the process the permission'],
      EROFS: ['the file system is read-only', 'mount it writable, or name another directory'],
      ENOSPC: ['the disk is full', 'make room'],
      EDQUOT: ['the disk quota is used up', 'make room, or raise the quota'],
      EMFILE: ['the process has no file descriptor left', 'raise `ulimit -n` (LimitNOFILE of systemd)'],
      ENFILE: ['the machine has no file descriptor left', 'raise fs.file-max'],
      EADDRINUSE: ['the port is in use', 'name another one'],
    },
  },
  {
    title: 'TLS',
    codes: {
      DEPTH_ZERO_SELF_SIGNED_CERT: [
        'the server’s certificate is signed by itself',
        'name it as the CA: sslrootcert= in DATABASE_URL, ASKONCE_REDIS_CA_FILE for Redis',
      ],
      SELF_SIGNED_CERT_IN_CHAIN: [
        'the server’s certificate comes from a CA that this machine does not know',
        'name the CA: sslrootcert= in DATABASE_URL, ASKONCE_REDIS_CA_FILE for Redis',
      ],
      UNABLE_TO_VERIFY_LEAF_SIGNATURE: [
        'the certificate comes from a CA that this machine does not know, or the server does not send the certificates in between',
        'name the CA: sslrootcert= in DATABASE_URL, ASKONCE_REDIS_CA_FILE for Redis',
      ],
      UNABLE_TO_GET_ISSUER_CERT: ['a certificate of the chain is missing', 'give the whole chain of the CA'],
      UNABLE_TO_GET_ISSUER_CERT_LOCALLY: [
        'the certificate comes from a CA that this machine does not know',
        'name the CA: sslrootcert= in DATABASE_URL, ASKONCE_REDIS_CA_FILE for Redis',
      ],
      CERT_HAS_EXPIRED: ['the server’s certificate has expired', 'renew it'],
      CERT_NOT_YET_VALID: ['the server’s certificate is not valid yet', 'look at the clocks of both machines'],
      ERR_TLS_CERT_ALTNAME_INVALID: [
        'the certificate is for another host name',
        'use a name that the certificate has, or have one made for this name',
      ],
      ERR_SSL_WRONG_VERSION_NUMBER: [
        'the port answers without TLS',
        'use the scheme without TLS (redis:// instead of rediss://), or the TLS port',
      ],
      ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: [
        'the server asks for a client certificate',
        'name certificate and key: sslcert= and sslkey= in DATABASE_URL, ASKONCE_REDIS_CERT_FILE and ASKONCE_REDIS_KEY_FILE for Redis',
      ],
      ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: [
        'the server does not know the CA of our client certificate',
        'have it signed by a CA that the server knows',
      ],
    },
  },
]

const pageHead = `# Codes in \`reason\`

Made from the code: change \`packages/core/src/reason-codes.ts\`, then \`npm run docs\`.

\`reason\` in the log and in \`/readyz\` is our own words, or the class and code of an error, then those of its cause, and what the
innermost code means: \`QueueUnavailableError: … <- ReplyError WRONGPASS (user or password is wrong …)\`. The text that a server sent is never
in it. An error without a code has the file and line where it was thrown instead: that is a bug, please report it. The codes of HTTP
answers and jobs are on [another page](errors.md).`

const meanings = new Map<string, CodeMeaning>(
  groups.flatMap(({ codes }) =>
    Object.entries(codes).map(([code, [meaning, todo]]) => [code, { meaning, todo: sentence(todo) }]),
  ),
)

/** What a code of Redis, Postgres, the system or TLS means and what to do about it; undefined for one that the table does not have. */
export function explainCode(code: string): CodeMeaning | undefined {
  return meanings.get(code)
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.?!;]$/.test(text) ? '' : '.'}`
}

/** The page docs/reasons.md. */
export function renderReasonCodes(): string {
  const tables = groups
    .map(({ title, codes }) => {
      const rows = Object.entries(codes).map(([code, [meaning, todo]]) => `| \`${code}\` | ${meaning} | ${todo} |`)
      return [`## ${title}`, '', '| code | means | what to do |', '|---|---|---|', ...rows].join('\n')
    })
    .join('\n\n')
  return `${pageHead}\n\n${tables}\n`
}
