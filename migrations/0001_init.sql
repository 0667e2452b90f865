-- The truth of Askonce. Nothing newer than PostgreSQL 15 is used.

create table settings (
  only_row boolean primary key default true check (only_row),
  -- Names this database in spool records, so that an answer is never delivered to another one.
  database_id uuid not null default gen_random_uuid()
);
insert into settings default values;

create table tenants (
  id text primary key check (id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  created_at timestamptz not null default now(),
  -- Whether requests of SDKs that name no key get one that is derived from what they ask.
  derive_keys boolean not null default false,
  -- What holds for its submissions that do not say otherwise; null: what the server's variables say.
  on_uncertain text check (on_uncertain in ('rerun', 'hold', 'fail')),
  max_attempts integer check (max_attempts between 1 and 100),
  max_paid_attempts integer check (max_paid_attempts between 1 and 10),
  ttl_seconds integer check (ttl_seconds > 0),
  timeout_seconds integer check (timeout_seconds between 1 and 86400),
  -- Its share of the calls where several tenants wait.
  weight integer not null default 1 check (weight between 1 and 100),
  -- What it may have at most; null: as much as it likes.
  max_running integer check (max_running between 0 and 100000),
  max_queued integer check (max_queued between 0 and 100000000),
  submissions_per_second integer check (submissions_per_second between 1 and 1000000),
  calls_per_minute integer check (calls_per_minute between 1 and 10000000),
  tokens_per_minute bigint check (tokens_per_minute between 1 and 1000000000000),
  -- US dollars for each day and month of UTC.
  budget_day_usd numeric(20, 10) check (budget_day_usd between 0 and 100000000),
  budget_month_usd numeric(20, 10) check (budget_month_usd between 0 and 100000000)
);
insert into tenants (id) values ('default');

-- What tenants with a budget have spent, by the day of UTC on which their attempts began. A claim reserves the most that its call can
-- cost; the end of the attempt settles it. An attempt that may be billed keeps its reservation.
create table tenant_days (
  tenant_id text not null,
  day date not null,
  spent_usd numeric(20, 10) not null default 0,
  reserved_usd numeric(20, 10) not null default 0,
  primary key (tenant_id, day)
);

-- What tenants with limits by minute have used, by the second (of the Unix epoch) in which it began. Old rows are swept.
create table tenant_seconds (
  tenant_id text not null,
  "second" bigint not null,
  calls integer not null default 0,
  -- Reserved by the claim, and corrected to what the provider counted by the end of the attempt.
  tokens bigint not null default 0,
  primary key (tenant_id, "second")
);

-- How many submissions of a tenant have made a job run in the newest second (of the Unix epoch) in which any did: of tenants with a limit
-- on them. A table of its own, so that no claim ever waits for an API that stopped in the middle of a submission.
create table tenant_submissions (
  tenant_id text primary key,
  "second" bigint not null,
  submissions integer not null
) with (fillfactor = 50);

create table api_keys (
  id uuid primary key default gen_random_uuid(),
  tenant_id text not null references tenants (id),
  name text not null check (length(name) between 1 and 100),
  -- SHA-256 of the key. Keys are random or at least 16 characters chosen by an operator: no salt, so that a look-up is one index read.
  key_hash bytea not null unique check (octet_length(key_hash) = 32),
  -- The first characters, for recognising a key in a list.
  hint text not null,
  scopes text[] not null check (scopes <@ array['submit', 'read', 'admin', 'operator'] and cardinality(scopes) > 0),
  created_at timestamptz not null default now(),
  revoked_at timestamptz
);

-- The idempotency table. A claim and an end copy the whole row, so what they do not change stands in tables of its own: requests, answers
-- (docs/decisions/0004). No index is on a column that they change: so nine of ten of these updates stay on their page and
-- touch no index. tenant_id has no foreign key: every insert would lock the tenant's row.
create table jobs (
  id uuid primary key,
  tenant_id text not null,
  idempotency_key text collate "C" not null check (length(idempotency_key) between 1 and 255),
  fingerprint bytea not null check (octet_length(fingerprint) = 32),
  -- SHA-256 of the body as it was sent and of all that decides its meaning, and a byte for what it asks of the answer beside the request: the
  -- same bytes sent again need not be parsed. Null: they are.
  body_digest bytea check (octet_length(body_digest) = 33),

  operation text not null check (operation in ('chat.completions', 'responses', 'embeddings', 'messages')),
  model text not null,
  lane text not null,
  -- The request has "stream": true: its answer is the provider's event stream, byte for byte.
  streamed boolean not null default false,
  -- The one batch that alone wants this job; null: somebody else wants it too. A job that was cancelled with this set was
  -- cancelled because its batch ended, not by a person: submitted again, it runs again.
  owner_batch uuid,
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

  run_at timestamptz not null,
  deadline_at timestamptz not null,
  -- The most that one call can cost and use; null: nobody knows. What a claim reserves where its tenant has a budget or a limit on tokens.
  reserve_usd numeric(20, 10) check (reserve_usd >= 0),
  reserve_tokens integer check (reserve_tokens >= 0),

  -- Of the stored answer, which stands in `answers`.
  response_status smallint,
  flags text[] not null default '{}',
  answer_attempt integer,
  provider_request_id text,
  error jsonb,
  -- The provider's own error body of the attempt that `error` speaks of, where it sent one.
  error_response bytea check (octet_length(error_response) <= 262144),
  error_content_type text,
  input_tokens bigint,
  output_tokens bigint,
  cost_usd numeric(20, 10),

  created_at timestamptz not null default now(),
  started_at timestamptz,
  uncertain_since timestamptz,
  completed_at timestamptz,
  expires_at timestamptz,

  constraint jobs_terminal_is_dated check (
    (state in ('succeeded', 'failed', 'cancelled')) = (completed_at is not null)
    and (completed_at is null) = (expires_at is null)
  ),
  constraint jobs_uncertain_is_dated check ((state = 'uncertain') = (uncertain_since is not null)),
  constraint jobs_running_is_claimed check (state <> 'running' or (attempt > 0 and started_at is not null)),
  constraint jobs_answer_is_whole check (
    (state = 'succeeded') = (answer_attempt is not null)
    and (state = 'succeeded') = (response_status is not null)
  ),
  constraint jobs_error_response_is_whole check ((error_response is null) = (error_content_type is null)),
  constraint jobs_failed_says_why check (state <> 'failed' or error is not null),
  constraint jobs_queued_may_run check (
    state <> 'queued'
    or tries < max_attempts
    and (paid = 0 or (on_uncertain = 'rerun' and paid < max_paid_attempts) or paid < consented_paid)
  )
);

-- Statements of the hot path keep their plans, which may have been made while the tables were nearly empty. What looks equally good to
-- the planner then must not be a choice. Of indexes over `state = 'queued'` each is for one question, so the others are written in a way that
-- only their own statements match.

-- Read backwards. Upwards, or each new entry would be the first of its tenant, and pages would be left half full.
create index jobs_list on jobs (tenant_id, created_at, id);
-- For lists and bulk changes by metadata. The tenant is part of what is looked for: entries of others are not even read.
create index jobs_metadata on jobs using gin (jsonb_set('{}', array[tenant_id], metadata) jsonb_path_ops) where metadata is not null;
-- The unique key as the newest index of the table: of two that look equally good Postgres takes the newer one, and while a table is
-- small the list of a tenant looks as good as the key.
alter table jobs add constraint jobs_key unique (tenant_id, idempotency_key);

alter table jobs set (
  -- Room for the versions that a claim and an end write.
  fillfactor = 45,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_analyze_scale_factor = 0.02
);

-- What is asked: written by the statement that makes the job or gives its row to a new one, never changed, and gone with the job.
create table requests (
  job_id uuid primary key,
  -- The exact bytes of the `request` member, as they are sent to the provider.
  request bytea not null,
  -- Headers of the caller that go to the provider with the request: betas, and those that ASKONCE_FORWARD_HEADERS names.
  -- An object of texts by lower-case name; null: none.
  request_headers jsonb
);

-- The answer of a succeeded job, and before that the name of one that is being shown. Written under the lock of the job's row.
create table answers (
  job_id uuid primary key,
  tenant_id text not null,
  -- The attempt whose answer it is; null: it has a name only.
  attempt integer,
  -- The exact bytes that the provider sent.
  response bytea,
  -- The answer in pieces, and its length; null: it is in `response`, or there is none yet.
  response_pieces uuid,
  response_bytes integer check (response_bytes > 0),
  response_content_type text,
  -- The provider's own id of the answer; of a streamed one as soon as it is shown.
  answer_id text check (length(answer_id) between 1 and 200),
  -- It may be asked for by that id: the answer of a response, or of a chat completion with metadata.
  findable boolean not null,
  constraint answers_are_whole check (num_nonnulls(response, response_pieces) = (attempt is not null)::int),
  constraint answers_pieces_are_counted check ((response_pieces is null) = (response_bytes is null)),
  constraint answers_say_something check (num_nonnulls(attempt, answer_id) > 0)
);

create index answers_by_name on answers (tenant_id, answer_id) where findable;

-- When which jobs expire, for the sweep: an entry for each end, of however many jobs. One that speaks of no job any more, because they are
-- gone, ran again or expire at another time, is dropped when it is due.
create table expiries (
  expires_at timestamptz not null,
  job_ids uuid[] not null
);
create index expiries_due on expiries (expires_at);

create function note_expiry() returns trigger language plpgsql as $$
begin
  insert into expiries (expires_at, job_ids) values (new.expires_at, array[new.id]);
  return null;
end $$;

create trigger jobs_expiry_given after insert on jobs for each row
when (new.expires_at is not null) execute function note_expiry();

-- Only the end of an attempt makes a job succeeded, and it writes the entry itself: many in one statement.
create trigger jobs_expiry_changed after update of expires_at on jobs for each row
when (
  new.expires_at is not null and new.expires_at is distinct from old.expires_at
  and not (old.state <> 'succeeded' and new.state = 'succeeded')
)
execute function note_expiry();

-- Jobs that are looked for because they are exceptions. A job that runs and succeeds as usual comes into no list, so it costs nothing.
create table job_lists (
  list text collate "C" not null check (
    -- By state; by money: paid for perhaps, or (perhaps) more than once; and chat completions that may have been stored to be found again.
    list in ('failed', 'cancelled', 'uncertain', 'maybe_paid', 'paid_twice', 'stored')
  ),
  tenant_id text collate "C" not null,
  created_at timestamptz not null,
  job_id uuid not null,
  -- Of the list `uncertain`: since when it is held.
  since timestamptz,
  primary key (list, tenant_id, created_at, job_id)
);
create index job_lists_held on job_lists (since) where list = 'uncertain';
-- Lists of stored completions go by id.
create index job_lists_stored on job_lists (tenant_id, job_id) where list = 'stored';

-- The lists that a job is in. The open attempt of a running job says nothing yet about money.
create function lists_of(job jobs) returns text[] language sql immutable as $$
  select array_remove(
    array[
      case when job.state in ('failed', 'cancelled', 'uncertain') then job.state end,
      case when job.paid - job.billed > (case when job.state = 'running' then 1 else 0 end) then 'maybe_paid' end,
      case when job.paid > (case when job.state = 'running' then 2 else 1 end) then 'paid_twice' end,
      case
        when job.operation = 'chat.completions' and job.state = 'succeeded' and not job.streamed and job.metadata is not null then 'stored'
      end
    ],
    null
  )
$$;

create function list_job() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' then
    if (lists_of(old), old.id, old.created_at, old.uncertain_since)
      is not distinct from (lists_of(new), new.id, new.created_at, new.uncertain_since)
    then
      return null;
    end if;
    delete from job_lists
    where list = any(lists_of(old)) and tenant_id = old.tenant_id and created_at = old.created_at and job_id = old.id;
  end if;
  insert into job_lists (list, tenant_id, created_at, job_id, since)
  select list, new.tenant_id, new.created_at, new.id, case when list = 'uncertain' then new.uncertain_since end
  from unnest(lists_of(new)) as list;
  return null;
end $$;

-- True where `lists_of` says something.
create trigger jobs_listed after insert on jobs for each row
when (
  new.state in ('failed', 'cancelled', 'uncertain')
  or new.paid - new.billed > (case when new.state = 'running' then 1 else 0 end)
  or new.paid > (case when new.state = 'running' then 2 else 1 end)
  or new.state = 'succeeded' and new.metadata is not null and new.operation = 'chat.completions'
)
execute function list_job();

create trigger jobs_relisted after update on jobs for each row
when (
  old.state in ('failed', 'cancelled', 'uncertain')
  or old.paid - old.billed > (case when old.state = 'running' then 1 else 0 end)
  or old.paid > (case when old.state = 'running' then 2 else 1 end)
  or old.state = 'succeeded' and old.metadata is not null and old.operation = 'chat.completions'
  or new.state in ('failed', 'cancelled', 'uncertain')
  or new.paid - new.billed > (case when new.state = 'running' then 1 else 0 end)
  or new.paid > (case when new.state = 'running' then 2 else 1 end)
  or new.state = 'succeeded' and new.metadata is not null and new.operation = 'chat.completions'
)
execute function list_job();

-- With a job goes all that belongs to it.
create function forget_jobs() returns trigger language plpgsql as $$
begin
  delete from requests where job_id = any(array(select id from gone));
  delete from answers where job_id = any(array(select id from gone));
  -- By the place that a look-up by key has found: a join could read all that is listed.
  delete from job_lists where ctid = any(array(
    select l.ctid from gone g cross join lateral unnest(lists_of(g)) as of (list)
    cross join lateral (
      select ctid from job_lists where list = of.list and tenant_id = g.tenant_id and created_at = g.created_at and job_id = g.id limit 1
    ) l
  ));
  return null;
end $$;

create trigger jobs_forgotten after delete on jobs
referencing old table as gone for each statement execute function forget_jobs();

-- So with an id whose row was given to a new job.
create function forget_id() returns trigger language plpgsql as $$
begin
  delete from requests where job_id = old.id;
  delete from answers where job_id = old.id;
  return null;
end $$;

create trigger jobs_id_changed after update of id on jobs for each row
when (old.id <> new.id) execute function forget_id();

-- What is queued, due or not, as the claim picks it: lane by lane, tenant by tenant, in each by model, then by priority and age. A row is
-- here exactly while its job is queued: the triggers below see to it, and the claim itself takes rows out. What waits behind a closed lane,
-- for a later time or for a limit is skipped through the key and not walked through.
create table ready (
  lane text collate "C" not null,
  tenant_id text collate "C" not null,
  model text collate "C" not null,
  priority smallint not null,
  run_at timestamptz not null,
  job_id uuid not null,
  deadline_at timestamptz not null,
  created_at timestamptz not null,
  reserve_usd numeric(20, 10),
  reserve_tokens integer,
  primary key (lane, tenant_id, model, priority, run_at, job_id)
);
create index ready_deadline on ready (deadline_at);
-- For lists of what a tenant has queued, newest first, and their number.
create index ready_list on ready (tenant_id, created_at, job_id);

alter table ready set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

create function add_to_ready() returns trigger language plpgsql as $$
begin
  insert into ready (lane, tenant_id, model, priority, run_at, job_id, deadline_at, created_at, reserve_usd, reserve_tokens)
  select lane, tenant_id, model, priority, run_at, id, deadline_at, created_at, reserve_usd, reserve_tokens
  from added where state = 'queued';
  return null;
end $$;

create trigger jobs_added after insert on jobs
referencing new table as added for each statement execute function add_to_ready();

create function change_ready() returns trigger language plpgsql as $$
begin
  if old.state = 'queued' then
    delete from ready
    where lane = old.lane and tenant_id = old.tenant_id and model = old.model and priority = old.priority
      and run_at = old.run_at and job_id = old.id;
  end if;
  if tg_op = 'UPDATE' then
    if new.state = 'queued' then
      insert into ready (lane, tenant_id, model, priority, run_at, job_id, deadline_at, created_at, reserve_usd, reserve_tokens)
      values (
        new.lane, new.tenant_id, new.model, new.priority, new.run_at, new.id, new.deadline_at, new.created_at, new.reserve_usd,
        new.reserve_tokens
      );
    end if;
  end if;
  return null;
end $$;

-- Only the claim makes a queued job running, and it takes the row out itself: many in one statement.
create trigger jobs_queued_changed after update on jobs for each row
when (
  (old.state = 'queued' or new.state = 'queued') and not (old.state = 'queued' and new.state = 'running')
  and (old.state, old.id, old.lane, old.tenant_id, old.model, old.priority, old.run_at, old.deadline_at)
    is distinct from (new.state, new.id, new.lane, new.tenant_id, new.model, new.priority, new.run_at, new.deadline_at)
)
execute function change_ready();

create trigger jobs_queued_deleted after delete on jobs for each row
when (old.state = 'queued') execute function change_ready();

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
  -- What names an attempt to the provider: random, so that nobody can plant or guess it.
  mark uuid not null default gen_random_uuid(),
  -- The metadata of the job, so that what a run or a customer has cost is known after its jobs are gone.
  metadata jsonb,
  -- Number of the claim, of its worker's. A beat tells by it an attempt whose claim is under way from one whose claim's reply was lost.
  claim bigint not null default 0,
  -- What the claim reserved; null: its tenant had no budget, or no limit on tokens.
  reserved_usd numeric(20, 10),
  reserved_tokens integer,
  primary key (job_id, attempt),
  constraint attempts_end_is_whole check (
    (finished_at is null) = (outcome is null) and (finished_at is null) = (billing is null)
  )
);

-- For readers of the ledger by key: it outlives the job, whose id is then known to nobody.
create index attempts_by_key on attempts (tenant_id, idempotency_key, started_at);
create index attempts_by_tenant on attempts (tenant_id, started_at);

-- Room for the version that the end writes: no index is on what it changes.
alter table attempts set (fillfactor = 45);

-- The attempts that are open: a row from the claim to the end. In the ledger the question would take an index that makes every end touch
-- all its indexes.
create table open_attempts (
  worker_id uuid not null,
  claim bigint not null,
  job_id uuid not null,
  attempt integer not null,
  tenant_id text not null,
  lane text not null
);
create index open_attempts_by_claim on open_attempts (worker_id, claim, job_id);
create index open_attempts_by_tenant on open_attempts (tenant_id);

alter table open_attempts set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

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
  -- The Postgres session of the last beat, where its end is a sign that the process died; null: it is none.
  session integer,
  constraint workers_death_is_dated check (dead = (died_at is not null))
);

create index workers_living on workers (id) where not dead;

-- One row per provider endpoint, and one for each model in it that was closed: a rate limit is of a model, and the others of its lane
-- go on. No row means open.
create table lanes (
  name text not null check (name ~ '^[a-z0-9-]{1,40}$'),
  -- Empty: the row of the whole lane.
  model text not null default '' check (length(model) <= 200),
  -- open; paused until a time (rate limited); breaker: closed until a time, then one probe at a time; stopped until resumed.
  state text not null default 'open' check (state in ('open', 'paused', 'breaker', 'stopped')),
  reason text,
  code text,
  until timestamptz,
  -- Overload answers in a row: five of them open the breaker.
  failures integer not null default 0 check (failures >= 0),
  changed_at timestamptz not null default now(),
  -- After a pause one call at a time leaves, until one is answered: the next not before this.
  turn_at timestamptz,
  primary key (name, model),
  constraint lanes_wait_is_dated check ((state in ('paused', 'breaker')) = (until is not null)),
  constraint lanes_closed_says_why check (state = 'open' or reason is not null),
  -- Money, credentials and overload are of the lane.
  constraint lanes_models_only_pause check (model = '' or state in ('open', 'paused'))
);

-- Who decided what about a job, when and why: one row for each change on request, written by the statement that makes the change.
-- Append-only. Like the ledger it has no foreign key to the job and outlives it.
create table decisions (
  -- Orders the decisions about one job: they are made under its row lock.
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  tenant_id text not null,
  job_id uuid not null,
  idempotency_key text collate "C" not null,
  action text not null check (action in ('retry', 'fail', 'cancel', 'delete')),
  accept_duplicate_charge boolean not null,
  from_state text not null,
  to_state text not null,
  -- The job as the decision found it.
  attempt integer not null,
  generation integer not null,
  paid integer not null,
  -- The key that asked, with its name of that day.
  api_key_id uuid not null,
  api_key_name text not null,
  reason text check (length(reason) between 1 and 500)
);

create index decisions_by_job on decisions (job_id, id);
create index decisions_retention on decisions (at);
-- For erasing what names somebody in the decisions about jobs that are gone.
create index decisions_by_key on decisions (tenant_id, idempotency_key);

-- What may be shown of a stream while its attempt is open, in pieces of whole events. The stored answer takes their place.
create table stream_chunks (
  job_id uuid not null,
  attempt integer not null check (attempt > 0),
  -- Bytes of the stream before this piece.
  "position" integer not null check ("position" >= 0),
  body bytea not null check (octet_length(body) > 0),
  created_at timestamptz not null default now(),
  primary key (job_id, attempt, "position")
);
create index stream_chunks_age on stream_chunks (created_at);

alter table stream_chunks set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- Jobs that were deleted a moment ago. What was copied of their answers into the results of batches is removed after the deletion, and
-- again a minute later, when nobody can be writing a copy that was read before it. A line that still waits for such a job ends.
create table forgotten_jobs (
  job_id uuid primary key,
  at timestamptz not null default now()
);
create index forgotten_jobs_age on forgotten_jobs (at);

-- Answers of more than a mebibyte stand beside their job, in pieces that are written and read one by one: as one value they would hold
-- up everybody who shares a statement or a connection with them.

-- An answer as one worker brought it. It is the job's from the moment on when the job names it.
create table large_answers (
  id uuid primary key,
  job_id uuid not null,
  attempt integer not null check (attempt > 0),
  bytes integer not null check (bytes > 0),
  -- When a sweeper looks whether the answer is still wanted.
  check_at timestamptz not null
);
create index large_answers_check on large_answers (check_at);
create index large_answers_job on large_answers (job_id);

create table answer_pieces (
  -- Held by each piece while it is written: no sweeper takes the row meanwhile, so no piece is left without it.
  answer uuid not null references large_answers (id),
  -- Bytes of the answer before this piece.
  "position" integer not null check ("position" >= 0),
  body bytea not null check (octet_length(body) between 1 and 1048576),
  primary key (answer, "position")
);
-- Not compressed: a piece is written and read while others wait for the same processor.
alter table answer_pieces alter column body set storage external;

-- Files and batches, on the same jobs, keys, ledger and workers.

create table files (
  id uuid primary key,
  tenant_id text not null,
  purpose text not null,
  filename text not null check (length(filename) between 1 and 255),
  -- uploading: arriving, swept when nothing comes any more; writing: an output that grows; processed: whole, and visible;
  -- internal: the body of a batch that came as JSON, or its results, which have no file of their own at that API.
  status text not null check (status in ('uploading', 'writing', 'processed', 'internal')),
  bytes bigint not null default 0 check (bytes >= 0),
  -- Of the whole; outputs have none.
  sha256 bytea check (octet_length(sha256) = 32),
  created_at timestamptz not null default now(),
  -- The last sign of life of an upload.
  touched_at timestamptz not null default now(),
  expires_at timestamptz
);

create index files_list on files (tenant_id, created_at desc, id desc) where status = 'processed';
create index files_expiry on files (expires_at) where expires_at is not null;
create index files_uploads on files (touched_at) where status = 'uploading';

-- The content, in pieces that follow each other without gaps.
create table file_parts (
  file_id uuid not null,
  -- Bytes of the file before this piece.
  "position" bigint not null check ("position" >= 0),
  body bytea not null check (octet_length(body) > 0),
  primary key (file_id, "position")
);
-- Read in slices, and written as fast as it comes: no compression.
alter table file_parts alter column body set storage external;

create table batches (
  id uuid primary key,
  tenant_id text not null,
  kind text not null check (kind in ('openai', 'anthropic')),
  operation text not null check (operation in ('chat.completions', 'responses', 'embeddings', 'messages')),
  endpoint text not null,
  -- The key that made it.
  api_key_id uuid not null,
  input_file_id uuid not null,
  -- The files that results go to while it runs; shown once it has ended.
  output_file_id uuid not null,
  error_file_id uuid not null,
  output_bytes bigint not null default 0 check (output_bytes >= 0),
  error_bytes bigint not null default 0 check (error_bytes >= 0),
  output_ttl_seconds integer check (output_ttl_seconds > 0),
  metadata jsonb,
  -- Headers of the caller that go to the provider with every line.
  request_headers jsonb,
  -- A line's key is `<key_prefix>/<custom_id>`.
  key_prefix text collate "C" not null check (length(key_prefix) between 1 and 190),
  completion_window text not null,
  window_seconds integer not null check (window_seconds > 0),

  status text not null check (
    status in ('validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', 'cancelled')
  ),
  -- Where `finalizing` leads.
  ending text check (ending in ('completed', 'expired', 'cancelled')),
  errors jsonb not null default '[]',

  -- How far the input has been read: bytes of whole lines, and their number.
  scan_bytes bigint not null default 0 check (scan_bytes >= 0),
  scan_lines integer not null default 0 check (scan_lines >= 0),
  total integer not null default 0 check (total >= 0),
  submitted integer not null default 0 check (submitted between 0 and total),
  done integer not null default 0 check (done between 0 and total),
  succeeded integer not null default 0 check (succeeded >= 0),
  failed integer not null default 0 check (failed >= 0),
  cancelled integer not null default 0 check (cancelled >= 0),
  expired integer not null default 0 check (expired >= 0),
  replayed integer not null default 0 check (replayed >= 0),
  -- Of the jobs that this batch made run.
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  cost_usd numeric(20, 10) not null default 0,

  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  in_progress_at timestamptz,
  finalizing_at timestamptz,
  cancelling_at timestamptz,
  -- Of whichever end it was.
  ended_at timestamptz,

  -- One driver at a time works on it: every write of a driver carries its lease, so an older one changes nothing.
  lease uuid,
  leased_until timestamptz,
  wake_at timestamptz not null default now(),

  constraint batches_done_is_sorted check (done = succeeded + failed + cancelled + expired),
  constraint batches_end_is_dated check (
    (status in ('failed', 'completed', 'expired', 'cancelled')) = (ended_at is not null)
  ),
  constraint batches_end_is_complete check (status not in ('completed', 'expired', 'cancelled') or done = total)
);

create index batches_active on batches (wake_at) where ended_at is null;
create index batches_list on batches (tenant_id, kind, created_at desc, id desc);
create index batches_ended on batches (ended_at) where ended_at is not null;
create index batches_input on batches (input_file_id) where ended_at is null;

create table batch_lines (
  batch_id uuid not null,
  -- Number of the line in the input, from 1.
  line integer not null check (line > 0),
  custom_id text collate "C" not null,
  -- ready: to be submitted; open: its job is under way; done: its result is written.
  state text not null default 'ready' check (state in ('ready', 'open', 'done')),
  fingerprint bytea not null,
  model text not null,
  lane text not null,
  -- Emptied once the result is written: until then the job may be deleted or expire, and the line is submitted again.
  request bytea not null,
  -- Chosen before the job exists, so that a submission whose commit was lost is known again. Later the job that has the key.
  job_id uuid not null,
  -- This batch made the job run; its key had a stored answer already.
  started boolean not null default false,
  replayed boolean not null default false,
  -- Why it becomes no job: `{code, message}`. The line gets this as its result.
  refusal jsonb,
  -- The most that its call can cost and use; null: nobody knows.
  reserve_usd numeric(20, 10) check (reserve_usd >= 0),
  reserve_tokens integer check (reserve_tokens >= 0),
  outcome text check (outcome in ('succeeded', 'failed', 'cancelled', 'expired')),
  -- Order of the results, from 1, and where the result stands.
  done_number integer,
  in_errors boolean,
  part_position bigint,
  part_offset integer,
  length integer,
  primary key (batch_id, line),
  constraint batch_lines_done_is_whole check (
    (state = 'done') = (outcome is not null) and (state = 'done') = (done_number is not null)
    and (state = 'done') = (length is not null)
  )
);

create unique index batch_lines_custom_id on batch_lines (batch_id, custom_id);
create index batch_lines_ready on batch_lines (batch_id, line) where state = 'ready';
create index batch_lines_open on batch_lines (batch_id, line) where state = 'open';
create index batch_lines_open_job on batch_lines (job_id) where state = 'open';
-- For the removal of copies of answers that were forgotten.
create index batch_lines_done_job on batch_lines (job_id) where state = 'done';
create unique index batch_lines_done on batch_lines (batch_id, done_number) where state = 'done';

alter table batch_lines set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- What the claim asks of a job, behind its lock. Both this and the next are simple enough for the planner to write them into the statement.
create function may_be_claimed(j jobs) returns boolean language sql stable as $$
  select coalesce(
    j.state = 'queued' and j.run_at <= now() and j.deadline_at > now() and j.tries < j.max_attempts
    and (j.paid = 0 or (j.on_uncertain = 'rerun' and j.paid < j.max_paid_attempts) or j.paid < j.consented_paid),
    false
  )
$$;

-- What it asks of a place in the list of what is queued, beyond that it is due. `budget`: the whole of it; null: there is none.
create function may_be_picked(r ready, budget numeric) returns boolean language sql stable as $$
  select r.deadline_at > now() and (budget is null or r.reserve_usd <= budget)
$$;

-- The claim: picks what runs next in a lane, makes it running and writes its attempts, in one statement of its caller and before any request
-- leaves. Each statement in here sees what was committed before it began, so what is counted behind a lock is true.
--
-- Tenants take turns in the order of their names, from `first_tenant` on: in a round each gets `weight` × quantum calls. Whose turn it is
-- next is in the last row, which has no id. Within a tenant the order is priority, then age; with `aged_first`, what has waited for an hour
-- comes before that, the oldest first.
--
-- Jobs of one tenant, model and priority are a group. Groups are found by skipping through the key of `ready`, so what waits behind
-- others costs nothing. Rows that were claimed leave dead entries in the key, through which every look would walk as long as some old
-- snapshot keeps them: of known groups, in the order of the key, the caller says from which `run_at` on it wants to look.
create function claim_jobs(
  worker uuid, claim_number bigint, lane_name text, places integer, first_tenant text, first_credit integer, aged_first boolean,
  known_tenants text[], known_models text[], known_priorities smallint[], known_since timestamptz[]
)
returns table (
  id uuid, attempt integer, generation integer, tenant_id text, operation text, model text, lane text, request bytea,
  request_headers jsonb, streamed boolean, timeout_ms integer, on_uncertain text, reruns integer, mark uuid, priority smallint,
  run_at timestamptz, queue_ms double precision,
  -- Of the last row. `more`: there may be more for whoever has places. `at_limit`: a tenant has as much running as it may have.
  next_tenant text, next_credit integer, more boolean, at_limit boolean
)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
  -- Behind every model that a name can have.
  behind constant text collate "C" := U&'\FFFF';
  -- Groups of a tenant that are looked at in one visit: callers choose the names of models.
  most_groups constant integer := 32;
  -- Jobs that are looked at beyond those that are wanted, where some may not fit into what is left of a budget.
  look_ahead constant integer := 50;
  today constant date := (now() at time zone 'utc')::date;
  this_second constant bigint := floor(extract(epoch from now()));
  known_count constant integer := coalesce(cardinality(known_tenants), 0);
  this_lane lanes%rowtype;
  on_trial boolean := false;
  closed_models text[];
  models_on_trial text[];
  places_left integer := places;
  quantum integer := greatest(1, places / 16);
  weight_of_more integer;
  -- Where the search stands, and what it finds next.
  at_tenant text collate "C";
  at_model text collate "C";
  at_priority smallint;
  known integer;
  found_tenant text collate "C";
  found_model text collate "C";
  found_priority smallint;
  found_run_at timestamptz;
  found_since timestamptz;
  -- The tenant whose groups are gathered, and its visit.
  -- Of no collation of its own: with one, the keys of tenants, which have none, could not be searched by it.
  visited text;
  groups integer;
  models text[];
  priorities smallint[];
  heads timestamptz[];
  sinces timestamptz[];
  tier record;
  most bigint;
  found_places tid[];
  found_jobs uuid[];
  found_run_ats timestamptz[];
  found_usd numeric[];
  found_tokens integer[];
  tenant tenants%rowtype;
  is_limited boolean;
  keep_credit integer := first_credit;
  credit integer;
  wanted bigint;
  got integer;
  taken integer;
  used bigint;
  tokens_left bigint;
  is_fresh boolean;
  budget numeric;
  budget_left numeric;
  is_busy boolean := false;
  is_at_limit boolean := false;
begin
  next_tenant := first_tenant;
  next_credit := 0;
  -- Marking a worker dead and claiming exclude each other, so no claim can slip in behind a reclaim. The lock is the weakest that does it:
  -- beats do not wait for it.
  perform from workers w where w.id = worker and not w.dead for key share;
  if not found then return; end if;

  select * into this_lane from lanes l where l.name = lane_name and l.model = '';
  if found and this_lane.state <> 'open' then
    if this_lane.state = 'stopped' or this_lane.until > now() or this_lane.turn_at > now() then return; end if;
    -- What was closed for a time opens for one call at a time, until one is answered: all at once would meet the same refusal.
    on_trial := true;
    places_left := 1;
  end if;
  select
    coalesce(array_agg(l.model) filter (where l.until > now() or l.turn_at > now()), '{}'),
    coalesce(array_agg(l.model) filter (where l.until <= now() and coalesce(l.turn_at <= now(), true)), '{}')
  into closed_models, models_on_trial
  from lanes l where l.name = lane_name and l.model <> '' and l.state <> 'open';

  <<rounds>>
  for round in 1..3 loop
    weight_of_more := 0;
    -- From the first tenant to the end, then from the beginning to the first tenant.
    for lap in 1..2 loop
      at_tenant := case when lap = 1 then first_tenant else '' end;
      at_model := case when lap = 1 and keep_credit = 0 then behind else '' end;
      at_priority := case when lap = 1 and keep_credit = 0 then 32767 else -1 end;
      known := 1;
      visited := null;
      models := '{}';
      loop
        -- The next group behind this one.
        loop
          while known <= known_count
            and (known_tenants[known], known_models[known], known_priorities[known]) <= (at_tenant, at_model, at_priority)
          loop
            known := known + 1;
          end loop;
          found_since := '-infinity';
          if known > known_count then
            select r.tenant_id, r.model, r.priority, r.run_at into found_tenant, found_model, found_priority, found_run_at
            from ready r
            where r.lane = lane_name and (r.tenant_id, r.model, r.priority) > (at_tenant, at_model, at_priority)
            order by r.lane, r.tenant_id, r.model, r.priority, r.run_at, r.job_id limit 1;
            exit;
          end if;
          select r.tenant_id, r.model, r.priority, r.run_at into found_tenant, found_model, found_priority, found_run_at
          from ready r
          where r.lane = lane_name and (r.tenant_id, r.model, r.priority) > (at_tenant, at_model, at_priority)
            and (r.tenant_id, r.model, r.priority) < (known_tenants[known], known_models[known], known_priorities[known])
          order by r.lane, r.tenant_id, r.model, r.priority, r.run_at, r.job_id limit 1;
          exit when found;
          at_tenant := known_tenants[known];
          at_model := known_models[known];
          at_priority := known_priorities[known];
          found_since := known_since[known];
          select r.tenant_id, r.model, r.priority, r.run_at into found_tenant, found_model, found_priority, found_run_at
          from ready r
          where r.lane = lane_name and r.tenant_id = at_tenant and r.model = at_model and r.priority = at_priority
            and r.run_at >= found_since
          order by r.lane, r.tenant_id, r.model, r.priority, r.run_at, r.job_id limit 1;
          exit when found;
        end loop;
        if lap = 2 and found_tenant > first_tenant then found_tenant := null; end if;

        if found_tenant is null or found_tenant is distinct from visited then
          if cardinality(models) > 0 then
            -- All groups of this tenant are gathered: its turn.
            select * into tenant from tenants t where t.id = visited;
            credit := coalesce(tenant.weight, 1) * quantum;
            if keep_credit > 0 and visited = first_tenant then credit := keep_credit; end if;
            keep_credit := 0;
            wanted := least(places_left, credit);
            got := 0;
            tokens_left := null;
            budget := null;
            budget_left := null;
            is_limited := num_nonnulls(
              tenant.max_running, tenant.calls_per_minute, tenant.tokens_per_minute, tenant.budget_day_usd, tenant.budget_month_usd
            ) > 0;
            if is_limited then
              -- One claim at a time counts what a tenant has. Whoever comes second goes on to the next tenant.
              select * into tenant from tenants t where t.id = visited for no key update skip locked;
              if not found then
                is_busy := true;
                wanted := 0;
              end if;
            end if;
            if wanted > 0 and tenant.max_running is not null then
              select count(*) into used from open_attempts o where o.tenant_id = visited;
              if tenant.max_running - used < wanted then
                wanted := tenant.max_running - used;
                is_at_limit := true;
              end if;
            end if;
            if wanted > 0 and num_nonnulls(tenant.calls_per_minute, tenant.tokens_per_minute) > 0 then
              select
                least(wanted, tenant.calls_per_minute - coalesce(sum(u.calls), 0)), tenant.tokens_per_minute - coalesce(sum(u.tokens), 0),
                coalesce(sum(u.tokens), 0) = 0
              into wanted, tokens_left, is_fresh
              from tenant_seconds u where u.tenant_id = visited and u."second" >= this_second - 60;
            end if;
            if wanted > 0 and num_nonnulls(tenant.budget_day_usd, tenant.budget_month_usd) > 0 then
              if not exists (select from tenant_days d where d.tenant_id = visited and d.day = today) then
                -- The first call of a day, or the first under a budget: begin with what the ledger says of this month so far.
                insert into tenant_days (tenant_id, day, spent_usd)
                select visited, day, sum(cost_usd)
                from (
                  select today as day, 0 as cost_usd
                  union all
                  select (a.started_at at time zone 'utc')::date, coalesce(a.cost_usd, 0) from attempts a
                  where a.tenant_id = visited and a.started_at >= date_trunc('month', now(), 'utc')
                ) spent
                group by day
                on conflict do nothing;
              end if;
              select least(
                tenant.budget_day_usd - coalesce(sum(d.spent_usd + d.reserved_usd) filter (where d.day = today), 0),
                tenant.budget_month_usd - coalesce(sum(d.spent_usd + d.reserved_usd), 0)
              ) into budget_left
              from tenant_days d where d.tenant_id = visited and d.day between date_trunc('month', today)::date and today;
              budget := least(tenant.budget_day_usd, tenant.budget_month_usd);
            end if;

            if wanted > 0 and on_trial then
              update lanes l set
                turn_at = case when l.state = 'paused' then now() + interval '1 second' end,
                until = case when l.state = 'breaker' then now() + interval '1 minute' else l.until end
              where (l.name, l.model) in (
                select o.name, o.model from lanes o
                where o.name = lane_name and o.model = '' and o.state in ('paused', 'breaker') and o.until <= now()
                  and coalesce(o.turn_at <= now(), true)
                for update skip locked
              );
              if not found then return; end if;
            end if;
            if wanted > 0 then
              for tier in
                -- Groups of one rank share it by age. A model on trial stands alone.
                select
                  array_agg(g.model) as models, array_agg(g.priority) as priorities, array_agg(g.since) as sinces,
                  bool_or(g.model = any(models_on_trial)) as is_on_trial
                from (
                  select g.*, case when aged_first and g.head < now() - interval '1 hour' then -1 else g.priority end as rank
                  from unnest(models, priorities, heads, sinces) g (model, priority, head, since)
                ) g
                group by g.rank, case when g.model = any(models_on_trial) then g.model end
                order by g.rank, min(g.head)
              loop
                exit when got >= wanted;
                taken := wanted - got;
                if tier.is_on_trial then
                  update lanes l set turn_at = now() + interval '1 second'
                  where (l.name, l.model) in (
                    select o.name, o.model from lanes o
                    where o.name = lane_name and o.model = tier.models[1] and o.until <= now() and coalesce(o.turn_at <= now(), true)
                    for update skip locked
                  );
                  continue when not found;
                  taken := 1;
                end if;
                most := taken + case when num_nonnulls(budget, tokens_left) > 0 then look_ahead else 0 end;
                -- The job decides, behind its lock. One that somebody holds is passed by, and the next one looked at.
                if cardinality(tier.models) = 1 then
                  select array_agg(c.place), array_agg(c.job_id), array_agg(c.run_at), array_agg(c.reserve_usd), array_agg(c.reserve_tokens)
                  into found_places, found_jobs, found_run_ats, found_usd, found_tokens
                  from (
                    select r.ctid as place, r.job_id, r.run_at, r.reserve_usd, r.reserve_tokens
                    from ready r
                    cross join lateral (
                      select from jobs j
                      where j.id = r.job_id and may_be_claimed(j)
                      for update skip locked
                    ) j
                    where r.lane = lane_name and r.tenant_id = visited and r.model = tier.models[1] and r.priority = tier.priorities[1]
                      and r.run_at >= tier.sinces[1] and r.run_at <= now() and may_be_picked(r, budget)
                    order by r.lane, r.tenant_id, r.model, r.priority, r.run_at, r.job_id
                    limit most
                  ) c;
                else
                  select array_agg(c.place), array_agg(c.job_id), array_agg(c.run_at), array_agg(c.reserve_usd), array_agg(c.reserve_tokens)
                  into found_places, found_jobs, found_run_ats, found_usd, found_tokens
                  from (
                    select r.*
                    from (
                      select r.*
                      from unnest(tier.models, tier.priorities, tier.sinces) g (model, priority, since)
                      cross join lateral (
                        select r.ctid as place, r.job_id, r.run_at, r.reserve_usd, r.reserve_tokens
                        from ready r
                        where r.lane = lane_name and r.tenant_id = visited and r.model = g.model and r.priority = g.priority
                          and r.run_at >= g.since and r.run_at <= now() and may_be_picked(r, budget)
                        order by r.lane, r.tenant_id, r.model, r.priority, r.run_at, r.job_id
                        limit most + look_ahead
                      ) r
                      order by r.run_at, r.job_id
                    ) r
                    cross join lateral (
                      select from jobs j
                      where j.id = r.job_id and may_be_claimed(j)
                      for update skip locked
                    ) j
                    limit most
                  ) c;
                end if;
                continue when found_jobs is null;
                return query
                with picked as materialized (
                  select f.place, f.job_id
                  from (
                    select
                      c.*, sum(c.reserve_usd) over fitting as usd, sum(coalesce(c.reserve_tokens, 0)) over fitting as tokens,
                      row_number() over fitting as place_in_turn
                    from unnest(found_places, found_jobs, found_run_ats, found_usd, found_tokens)
                      c (place, job_id, run_at, reserve_usd, reserve_tokens)
                    where (budget_left is null or c.reserve_usd <= budget_left)
                      -- What is larger than the whole limit runs when nothing else has in the last minute.
                      and (tokens_left is null or is_fresh or coalesce(c.reserve_tokens, 0) <= tokens_left)
                    window fitting as (order by c.run_at, c.job_id)
                  ) f
                  where f.place_in_turn <= taken and (budget_left is null or f.usd <= budget_left)
                    and (tokens_left is null or f.tokens <= tokens_left or (is_fresh and f.place_in_turn = 1))
                ),
                -- A row that was put there anew since it was found stays, and so does its job.
                gone as (
                  delete from ready r
                  where r.ctid = any(array(select p.place from picked p)) and r.job_id = any(array(select p.job_id from picked p))
                  returning r.job_id
                ),
                claimed as (
                  update jobs j
                  set state = 'running', attempt = j.attempt + 1, tries = j.tries + 1, paid = j.paid + 1, started_at = now()
                  where j.id = any(array(select g.job_id from gone g))
                  returning j.*, gen_random_uuid() as mark
                ),
                opened as (
                  insert into attempts (
                    job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model, worker_id, mark, metadata,
                    claim, reserved_usd, reserved_tokens
                  )
                  select
                    c.id, c.attempt, c.generation, c.tenant_id, c.idempotency_key, c.fingerprint, c.operation, c.lane, c.model, worker,
                    c.mark, c.metadata, claim_number, case when budget is not null then c.reserve_usd end,
                    case when tokens_left is not null then coalesce(c.reserve_tokens, 0) end
                  from claimed c
                ),
                noted as (
                  insert into open_attempts (worker_id, claim, job_id, attempt, tenant_id, lane)
                  select worker, claim_number, c.id, c.attempt, c.tenant_id, c.lane from claimed c
                ),
                reserved as (
                  update tenant_days d set reserved_usd = d.reserved_usd + (select coalesce(sum(c.reserve_usd), 0) from claimed c)
                  where budget is not null and d.tenant_id = visited and d.day = today
                  returning 1
                ),
                -- After the day: ends lock them in this order, too.
                counted as (
                  insert into tenant_seconds as u (tenant_id, "second", calls, tokens)
                  select visited, this_second, count(*), coalesce(sum(c.reserve_tokens), 0) from claimed c
                  where num_nonnulls(tenant.calls_per_minute, tenant.tokens_per_minute) > 0 and (select count(*) from reserved) >= 0
                  having count(*) > 0
                  on conflict (tenant_id, "second") do update
                  set calls = u.calls + excluded.calls, tokens = u.tokens + excluded.tokens
                )
                select
                  c.id, c.attempt, c.generation, c.tenant_id, c.operation, c.model, c.lane, q.request, q.request_headers, c.streamed,
                  c.timeout_ms, c.on_uncertain, c.reruns, c.mark, c.priority, c.run_at,
                  extract(epoch from now() - c.run_at)::float8 * 1000, null::text, null::integer, null::boolean, null::boolean
                from claimed c
                left join lateral (select r.request, r.request_headers from requests r where r.job_id = c.id limit 1) q on true;
                get diagnostics taken = row_count;
                got := got + taken;
                -- What is left was counted before these: the next group of this tenant waits for its next visit.
                exit when taken > 0 and num_nonnulls(tokens_left, budget_left) > 0;
              end loop;
              if got = 0 and on_trial and this_lane.state = 'breaker' then
                -- Nothing to probe with: the next look may probe at once.
                update lanes l set until = now() where l.name = lane_name and l.model = '' and l.state = 'breaker';
              end if;
            end if;
            places_left := places_left - got;
            if got > 0 and got = wanted then weight_of_more := weight_of_more + coalesce(tenant.weight, 1); end if;
            next_tenant := visited;
            next_credit := 0;
            if places_left = 0 then
              next_credit := credit - got;
              exit rounds;
            end if;
          end if;
          exit when found_tenant is null;
          visited := found_tenant;
          groups := 0;
          models := '{}';
          priorities := '{}';
          heads := '{}';
          sinces := '{}';
        end if;
        groups := groups + 1;
        if found_run_at <= now() and found_model <> all(closed_models) then
          models := models || found_model::text;
          priorities := priorities || found_priority;
          heads := heads || found_run_at;
          sinces := sinces || found_since;
        end if;
        at_tenant := found_tenant;
        at_model := case when groups < most_groups then found_model else behind end;
        at_priority := found_priority;
      end loop;
    end loop;
    -- Places that nobody else wants go to those who have more.
    exit when weight_of_more = 0;
    quantum := greatest(1, ceil(places_left::numeric / weight_of_more));
  end loop;

  id := null;
  more := places_left = 0 or is_busy;
  at_limit := is_at_limit;
  return next;
end $$;
