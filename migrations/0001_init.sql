-- The truth of Askonce. Nothing newer than PostgreSQL 15 is used.

create table settings (
  only_row boolean primary key default true check (only_row),
  -- Names this database in spool records, so that an answer is never delivered to another one.
  database_id uuid not null default gen_random_uuid()
);
insert into settings default values;

create table tenants (
  id text primary key check (id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  created_at timestamptz not null default now()
);
insert into tenants (id) values ('default');

create table api_keys (
  id uuid primary key default gen_random_uuid(),
  tenant_id text not null references tenants (id),
  name text not null check (length(name) between 1 and 100),
  -- SHA-256 of the key. Keys are random or at least 16 characters chosen by an operator: no salt, so that a look-up is one index read.
  key_hash bytea not null unique check (octet_length(key_hash) = 32),
  -- The first characters, for recognising a key in a list.
  hint text not null,
  scopes text[] not null check (scopes <@ array['submit', 'read', 'admin'] and cardinality(scopes) > 0),
  created_at timestamptz not null default now(),
  revoked_at timestamptz
);

-- The idempotency table. tenant_id has no foreign key: every insert would lock the tenant's row.
create table jobs (
  id uuid primary key,
  tenant_id text not null,
  idempotency_key text collate "C" not null check (length(idempotency_key) between 1 and 255),
  fingerprint bytea not null check (octet_length(fingerprint) = 32),

  operation text not null check (operation in ('chat.completions', 'responses', 'embeddings', 'messages')),
  model text not null,
  lane text not null,
  -- The exact bytes of the `request` member, as they are sent to the provider.
  request bytea not null,
  metadata jsonb,
  priority smallint not null check (priority between 0 and 9),
  timeout_ms integer not null check (timeout_ms > 0),
  ttl_seconds integer not null check (ttl_seconds > 0),
  deadline_seconds integer not null check (deadline_seconds > 0),

  state text not null check (state in ('queued', 'running', 'succeeded', 'failed', 'uncertain', 'cancelled')),
  generation integer not null default 1 check (generation > 0),
  -- The fence: grows by one at each claim, never resets within an id.
  attempt integer not null default 0 check (attempt >= 0),

  -- What the money predicates read. Kept by the statements that change attempts.
  on_uncertain text not null check (on_uncertain in ('rerun', 'hold', 'fail')),
  max_attempts smallint not null check (max_attempts > 0),
  max_paid_attempts smallint not null check (max_paid_attempts > 0),
  tries integer not null default 0 check (tries >= 0),
  paid integer not null default 0 check (paid >= 0),
  billed integer not null default 0 check (billed between 0 and paid),
  consented_paid integer not null default 0 check (consented_paid >= 0),
  -- Reruns with backoff since the last request to run: the exponent of the next backoff.
  reruns integer not null default 0 check (reruns >= 0),

  -- Number of the newest hand-over to BullMQ; `<id>.<dispatch>` is its job id there.
  dispatch integer not null default 0,
  -- When that hand-over was decided; null: the janitor hands it over when it is due.
  dispatched_at timestamptz,
  run_at timestamptz not null,
  deadline_at timestamptz not null,

  response bytea,
  response_status smallint,
  response_content_type text,
  flags text[] not null default '{}',
  answer_attempt integer,
  provider_request_id text,
  error jsonb,
  input_tokens bigint,
  output_tokens bigint,
  cost_usd numeric(20, 10),

  created_at timestamptz not null default now(),
  started_at timestamptz,
  uncertain_since timestamptz,
  completed_at timestamptz,
  expires_at timestamptz,

  constraint jobs_key unique (tenant_id, idempotency_key),
  constraint jobs_terminal_is_dated check (
    (state in ('succeeded', 'failed', 'cancelled')) = (completed_at is not null)
    and (completed_at is null) = (expires_at is null)
  ),
  constraint jobs_uncertain_is_dated check ((state = 'uncertain') = (uncertain_since is not null)),
  constraint jobs_running_is_claimed check (state <> 'running' or (attempt > 0 and started_at is not null)),
  constraint jobs_answer_is_whole check (
    (state = 'succeeded') = (response is not null)
    and (response is null) = (answer_attempt is null)
    and (response is null) = (response_status is null)
  ),
  constraint jobs_failed_says_why check (state <> 'failed' or error is not null),
  constraint jobs_queued_may_run check (
    state <> 'queued'
    or tries < max_attempts
    and (paid = 0 or (on_uncertain = 'rerun' and paid < max_paid_attempts) or paid < consented_paid)
  )
);

-- One partial index per reader.
create index jobs_to_dispatch on jobs (lane, run_at, id) where state = 'queued' and dispatched_at is null;
create index jobs_dispatched on jobs (dispatched_at, id) where state = 'queued' and dispatched_at is not null;
create index jobs_deadline on jobs (deadline_at) where state = 'queued';
create index jobs_uncertain on jobs (uncertain_since) where state = 'uncertain';
create index jobs_expiry on jobs (expires_at) where expires_at is not null;
create index jobs_list on jobs (tenant_id, created_at desc, id desc);
create index jobs_list_state on jobs (tenant_id, state, created_at desc, id desc) where state <> 'succeeded';

alter table jobs set (
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_analyze_scale_factor = 0.02
);

-- The spend ledger: one row per claim, committed before the request leaves. It outlives the job.
create table attempts (
  job_id uuid not null,
  attempt integer not null check (attempt > 0),
  generation integer not null,
  tenant_id text not null,
  idempotency_key text collate "C" not null,
  fingerprint bytea not null,
  operation text not null,
  lane text not null,
  model text not null,
  worker_id uuid not null,
  started_at timestamptz not null default now(),
  finished_at timestamptz,
  outcome text check (
    outcome in (
      'answered', 'surplus', 'unstorable', 'rejected', 'failed', 'paused', 'alarmed', 'unknown', 'lost', 'cancelled',
      'drained', 'unsent'
    )
  ),
  billing text check (billing in ('none', 'maybe', 'billed')),
  provider_status smallint,
  error_code text,
  provider_request_id text,
  input_tokens bigint,
  output_tokens bigint,
  cost_usd numeric(20, 10),
  primary key (job_id, attempt),
  constraint attempts_end_is_whole check (
    (finished_at is null) = (outcome is null) and (finished_at is null) = (billing is null)
  )
);

create index attempts_open on attempts (worker_id) where finished_at is null;
create index attempts_by_tenant on attempts (tenant_id, started_at);
create index attempts_retention on attempts (finished_at) where finished_at is not null;

-- One heartbeat row per worker process and start. A dead id is never revived.
create table workers (
  id uuid primary key,
  host text not null,
  pid integer not null,
  version text not null,
  beat bigint not null default 0,
  beat_at timestamptz not null default now(),
  started_at timestamptz not null default now(),
  dead boolean not null default false,
  died_at timestamptz,
  constraint workers_death_is_dated check (dead = (died_at is not null))
);

create index workers_living on workers (id) where not dead;

-- One row per provider endpoint. No row means open.
create table lanes (
  name text primary key check (name ~ '^[a-z0-9-]{1,40}$'),
  -- open; paused until a time (rate limited); breaker: closed until a time, then one probe at a time; stopped until resumed.
  state text not null default 'open' check (state in ('open', 'paused', 'breaker', 'stopped')),
  reason text,
  code text,
  until timestamptz,
  -- Overload answers in a row: five of them open the breaker.
  failures integer not null default 0 check (failures >= 0),
  changed_at timestamptz not null default now(),
  constraint lanes_wait_is_dated check ((state in ('paused', 'breaker')) = (until is not null)),
  constraint lanes_closed_says_why check (state = 'open' or reason is not null)
);
