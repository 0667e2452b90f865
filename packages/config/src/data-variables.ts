import { readPostgresUrl, readRedisPrefix, readRedisUrl } from './readers.ts'
import { integer, path, variable } from './variable.ts'

/** Where everything is kept, and the queue. */
export const data = {
  DATABASE_URL: variable(
    {
      unset: 'embedded PostgreSQL in the data directory',
      accepts: 'postgres:// or postgresql:// address',
      meaning:
        'The database that holds jobs, answers and the ledger (PostgreSQL 15 to 18). What the address may say, TLS included: [addresses](operations.md#addresses-and-tls). Parts that it leaves out come from `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGOPTIONS`, `PGSSLMODE`, `PGSSLROOTCERT`, `PGSSLCERT` and `PGSSLKEY`; without it these are not read.',
      example: 'postgres://askonce:password@db.example.com:5432/askonce',
      secret: true,
    },
    null,
    readPostgresUrl,
  ),
  DATABASE_DIRECT_URL: variable(
    {
      unset: '`DATABASE_URL` is the server itself',
      accepts: 'postgres:// or postgresql:// address',
      meaning:
        'The database server itself, where `DATABASE_URL` is a pooler in transaction mode such as PgBouncer. What needs a session of its own goes here: listeners, heartbeats, migrations, BullMQ on PostgreSQL. The role then needs settings, see [operations](operations.md#pgbouncer).',
      example: 'postgres://askonce:password@db.example.com:5432/askonce',
      secret: true,
    },
    null,
    readPostgresUrl,
  ),
  ASKONCE_DATABASE_POOL: integer(
    { unset: 10, min: 2, max: 1000, unit: 'connections' },
    'Connections per process, besides those that listen; the roles of `askonce start` share them. Statements are grouped, so a few carry thousands of jobs a second; the sum over all processes must stay below the server’s `max_connections`.',
  ),
  REDIS_URL: variable(
    {
      unset: 'BullMQ on PostgreSQL',
      accepts: 'redis://, redis+cluster:// or redis+sentinel:// address; with rediss for TLS',
      meaning:
        'Redis (7.0 or newer, `noeviction`) for the queue. Only ids pass through it; it may be flushed at any moment. A cluster by some of its nodes: `redis+cluster://:password@host:6379,host:6379`. Sentinels, and the name that they know the primary by: `redis+sentinel://:password@host:26379,host:26379/name/0`; the password is that of the servers, `?sentinel_password=` and `sentinel_username=` are for the sentinels.',
      example: 'redis://:password@redis.example.com:6379/0',
      secret: true,
    },
    null,
    readRedisUrl,
  ),
  ASKONCE_REDIS_CA_FILE: path(
    'the authorities that Node trusts',
    null,
    '/etc/askonce/redis-ca.pem',
    'The authorities, in PEM format, that the certificates of `rediss://` servers, cluster nodes and sentinels may come from.',
  ),
  ASKONCE_REDIS_CERT_FILE: path(
    'none',
    null,
    '/etc/askonce/redis-client.crt',
    'The certificate, in PEM format, that is shown to Redis (`tls-auth-clients`); together with `ASKONCE_REDIS_KEY_FILE`.',
  ),
  ASKONCE_REDIS_KEY_FILE: path(
    'none',
    null,
    '/etc/askonce/redis-client.key',
    'The key of `ASKONCE_REDIS_CERT_FILE`, in PEM format.',
  ),
  ASKONCE_REDIS_PREFIX: variable(
    {
      unset: 'askonce',
      accepts: '1 to 40 letters, digits and `-_.:`',
      meaning:
        'What the names of all keys in Redis begin with, in braces (`{askonce}:…`), so that a cluster keeps them together. Systems that share a Redis need one each, the same in all processes of a system.',
      example: 'staging',
    },
    '{askonce}',
    readRedisPrefix,
  ),
  ASKONCE_DATA_DIR: path(
    '.askonce',
    '.askonce',
    '/var/lib/askonce',
    'Embedded database, generated key and spool live here. Relative to the working directory.',
  ),
  ASKONCE_SPOOL_DIR: path(
    '`spool` in the data directory',
    null,
    '/var/lib/askonce/spool',
    'Where a worker keeps answers that it could not store because the database was away. They are paid for: give it a disk that survives a restart.',
  ),
}
