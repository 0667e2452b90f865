const ownLimits = 'Askonce sets its own limits'
const ownPool = 'ASKONCE_DATABASE_POOL sets the size of the pool'
const ownName = 'Askonce names its connections itself, so that pg_stat_activity tells them apart'
const ownKeepAlive = 'Askonce sees to that itself, every 10 s'
const ofPrisma = 'only Prisma reads it'

/** Parameters that are read. */
export const knownParameters: ReadonlySet<string> = new Set([
  'host',
  'port',
  'user',
  'password',
  'dbname',
  'sslmode',
  'ssl',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'sslpassword',
  'sslnegotiation',
  'channel_binding',
  'options',
  'target_session_attrs',
  'gssencmode',
  'uselibpqcompat',
])

/** Parameters that other programs read and addresses bring along, and why each is none of ours. */
export const refusedParameters: ReadonlyMap<string, string> = new Map(
  Object.entries({
    hostaddr: 'write the address as host',
    service: 'the parts of a service file are not read',
    application_name: ownName,
    fallback_application_name: ownName,
    connect_timeout: 'a connection is given 5 s',
    connectionTimeoutMillis: 'a connection is given 5 s',
    query_timeout: ownLimits,
    statement_timeout: ownLimits,
    lock_timeout: ownLimits,
    idle_in_transaction_session_timeout: ownLimits,
    tcp_user_timeout: ownLimits,
    max: ownPool,
    min: ownPool,
    idleTimeoutMillis: ownPool,
    keepAlive: ownKeepAlive,
    keepalives: ownKeepAlive,
    keepalives_idle: ownKeepAlive,
    keepalives_interval: ownKeepAlive,
    keepalives_count: ownKeepAlive,
    binary: 'values are read as text',
    client_encoding: 'it is always UTF8',
    encoding: 'it is always UTF8',
    replication: 'Askonce needs an ordinary session',
    load_balance_hosts: 'an address has one host',
    sslcompression: 'TLS does not compress any more',
    sslsni: 'the host name is always sent',
    // Of other drivers and of providers' own tools.
    schema: 'write options=-csearch_path%3Dname',
    search_path: 'write options=-csearch_path%3Dname',
    currentSchema: 'write options=-csearch_path%3Dname',
    pgbouncer: `${ofPrisma}; a pooler in transaction mode needs DATABASE_DIRECT_URL beside it`,
    connection_limit: `${ofPrisma}; ${ownPool}`,
    pool_timeout: ofPrisma,
    sslaccept: `${ofPrisma}; sslmode says the same`,
    sslidentity: ofPrisma,
    statement_cache_size: ofPrisma,
    socket_timeout: ofPrisma,
    supa: 'only Supabase’s own tools read it',
    workaround: 'only Supabase’s own tools read it',
    prepareThreshold: 'only JDBC reads it',
  }),
)
