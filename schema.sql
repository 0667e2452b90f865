-- What the files in migrations/ make of an empty database. Written by `npm run schema`; do not edit.

create table answer_pieces (
  answer uuid not null,
  "position" integer not null,
  body bytea not null,
  constraint answer_pieces_answer_fkey FOREIGN KEY (answer) REFERENCES large_answers(id),
  constraint answer_pieces_body_check CHECK (((octet_length(body) >= 1) AND (octet_length(body) <= 1048576))),
  constraint answer_pieces_pkey PRIMARY KEY (answer, "position"),
  constraint answer_pieces_position_check CHECK (("position" >= 0))
);

create table answers (
  job_id uuid not null,
  tenant_id text not null,
  attempt integer,
  response bytea,
  response_pieces uuid,
  response_bytes integer,
  response_content_type text,
  answer_id text,
  findable boolean not null,
  constraint answers_answer_id_check CHECK (((length(answer_id) >= 1) AND (length(answer_id) <= 200))),
  constraint answers_are_whole CHECK ((num_nonnulls(response, response_pieces) = ((attempt IS NOT NULL))::integer)),
  constraint answers_pieces_are_counted CHECK (((response_pieces IS NULL) = (response_bytes IS NULL))),
  constraint answers_pkey PRIMARY KEY (job_id),
  constraint answers_response_bytes_check CHECK ((response_bytes > 0)),
  constraint answers_say_something CHECK ((num_nonnulls(attempt, answer_id) > 0))
);
CREATE INDEX answers_by_name ON public.answers USING btree (tenant_id, answer_id) WHERE findable;

create table api_keys (
  id uuid not null default gen_random_uuid(),
  tenant_id text not null,
  name text not null,
  key_hash bytea not null,
  hint text not null,
  scopes text[] not null,
  created_at timestamp with time zone not null default now(),
  revoked_at timestamp with time zone,
  constraint api_keys_key_hash_check CHECK ((octet_length(key_hash) = 32)),
  constraint api_keys_key_hash_key UNIQUE (key_hash),
  constraint api_keys_name_check CHECK (((length(name) >= 1) AND (length(name) <= 100))),
  constraint api_keys_pkey PRIMARY KEY (id),
  constraint api_keys_scopes_check CHECK (((scopes <@ ARRAY['submit'::text, 'read'::text, 'admin'::text, 'operator'::text]) AND (cardinality(scopes) > 0))),
  constraint api_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);

create table attempts (
  job_id uuid not null,
  attempt integer not null,
  generation integer not null,
  tenant_id text not null,
  idempotency_key text collate "C" not null,
  fingerprint bytea not null,
  operation text not null,
  lane text not null,
  model text not null,
  worker_id uuid not null,
  started_at timestamp with time zone not null default now(),
  finished_at timestamp with time zone,
  outcome text,
  billing text,
  provider_status smallint,
  error_code text,
  provider_request_id text,
  input_tokens bigint,
  output_tokens bigint,
  cost_usd numeric(20,10),
  mark uuid not null default gen_random_uuid(),
  metadata jsonb,
  claim bigint not null default 0,
  reserved_usd numeric(20,10),
  reserved_tokens integer,
  constraint attempts_attempt_check CHECK ((attempt > 0)),
  constraint attempts_billing_check CHECK ((billing = ANY (ARRAY['none'::text, 'maybe'::text, 'billed'::text]))),
  constraint attempts_end_is_whole CHECK ((((finished_at IS NULL) = (outcome IS NULL)) AND ((finished_at IS NULL) = (billing IS NULL)))),
  constraint attempts_outcome_check CHECK ((outcome = ANY (ARRAY['answered'::text, 'surplus'::text, 'unstorable'::text, 'rejected'::text, 'failed'::text, 'paused'::text, 'alarmed'::text, 'unknown'::text, 'lost'::text, 'cancelled'::text, 'drained'::text, 'unsent'::text]))),
  constraint attempts_pkey PRIMARY KEY (job_id, attempt)
) with (fillfactor=45);
CREATE INDEX attempts_by_key ON public.attempts USING btree (tenant_id, idempotency_key, started_at);
CREATE INDEX attempts_by_tenant ON public.attempts USING btree (tenant_id, started_at);

create table batch_lines (
  batch_id uuid not null,
  line integer not null,
  custom_id text collate "C" not null,
  state text not null default 'ready'::text,
  fingerprint bytea not null,
  model text not null,
  lane text not null,
  request bytea not null,
  job_id uuid not null,
  started boolean not null default false,
  replayed boolean not null default false,
  refusal jsonb,
  reserve_usd numeric(20,10),
  reserve_tokens integer,
  outcome text,
  done_number integer,
  in_errors boolean,
  part_position bigint,
  part_offset integer,
  length integer,
  constraint batch_lines_done_is_whole CHECK ((((state = 'done'::text) = (outcome IS NOT NULL)) AND ((state = 'done'::text) = (done_number IS NOT NULL)) AND ((state = 'done'::text) = (length IS NOT NULL)))),
  constraint batch_lines_line_check CHECK ((line > 0)),
  constraint batch_lines_outcome_check CHECK ((outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'cancelled'::text, 'expired'::text]))),
  constraint batch_lines_pkey PRIMARY KEY (batch_id, line),
  constraint batch_lines_reserve_tokens_check CHECK ((reserve_tokens >= 0)),
  constraint batch_lines_reserve_usd_check CHECK ((reserve_usd >= (0)::numeric)),
  constraint batch_lines_state_check CHECK ((state = ANY (ARRAY['ready'::text, 'open'::text, 'done'::text])))
) with (autovacuum_vacuum_insert_scale_factor=0.05, autovacuum_vacuum_scale_factor=0.02);
CREATE UNIQUE INDEX batch_lines_custom_id ON public.batch_lines USING btree (batch_id, custom_id);
CREATE UNIQUE INDEX batch_lines_done ON public.batch_lines USING btree (batch_id, done_number) WHERE (state = 'done'::text);
CREATE INDEX batch_lines_done_job ON public.batch_lines USING btree (job_id) WHERE (state = 'done'::text);
CREATE INDEX batch_lines_open ON public.batch_lines USING btree (batch_id, line) WHERE (state = 'open'::text);
CREATE INDEX batch_lines_open_job ON public.batch_lines USING btree (job_id) WHERE (state = 'open'::text);
CREATE INDEX batch_lines_ready ON public.batch_lines USING btree (batch_id, line) WHERE (state = 'ready'::text);

create table batches (
  id uuid not null,
  tenant_id text not null,
  kind text not null,
  operation text not null,
  endpoint text not null,
  api_key_id uuid not null,
  input_file_id uuid not null,
  output_file_id uuid not null,
  error_file_id uuid not null,
  output_bytes bigint not null default 0,
  error_bytes bigint not null default 0,
  output_ttl_seconds integer,
  metadata jsonb,
  request_headers jsonb,
  key_prefix text collate "C" not null,
  completion_window text not null,
  window_seconds integer not null,
  status text not null,
  ending text,
  errors jsonb not null default '[]'::jsonb,
  scan_bytes bigint not null default 0,
  scan_lines integer not null default 0,
  total integer not null default 0,
  submitted integer not null default 0,
  done integer not null default 0,
  succeeded integer not null default 0,
  failed integer not null default 0,
  cancelled integer not null default 0,
  expired integer not null default 0,
  replayed integer not null default 0,
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  cost_usd numeric(20,10) not null default 0,
  created_at timestamp with time zone not null default now(),
  expires_at timestamp with time zone not null,
  in_progress_at timestamp with time zone,
  finalizing_at timestamp with time zone,
  cancelling_at timestamp with time zone,
  ended_at timestamp with time zone,
  lease uuid,
  leased_until timestamp with time zone,
  wake_at timestamp with time zone not null default now(),
  constraint batches_cancelled_check CHECK ((cancelled >= 0)),
  constraint batches_check CHECK (((submitted >= 0) AND (submitted <= total))),
  constraint batches_check1 CHECK (((done >= 0) AND (done <= total))),
  constraint batches_done_is_sorted CHECK ((done = (((succeeded + failed) + cancelled) + expired))),
  constraint batches_end_is_complete CHECK (((status <> ALL (ARRAY['completed'::text, 'expired'::text, 'cancelled'::text])) OR (done = total))),
  constraint batches_end_is_dated CHECK (((status = ANY (ARRAY['failed'::text, 'completed'::text, 'expired'::text, 'cancelled'::text])) = (ended_at IS NOT NULL))),
  constraint batches_ending_check CHECK ((ending = ANY (ARRAY['completed'::text, 'expired'::text, 'cancelled'::text]))),
  constraint batches_error_bytes_check CHECK ((error_bytes >= 0)),
  constraint batches_expired_check CHECK ((expired >= 0)),
  constraint batches_failed_check CHECK ((failed >= 0)),
  constraint batches_key_prefix_check CHECK (((length(key_prefix) >= 1) AND (length(key_prefix) <= 190))),
  constraint batches_kind_check CHECK ((kind = ANY (ARRAY['openai'::text, 'anthropic'::text]))),
  constraint batches_operation_check CHECK ((operation = ANY (ARRAY['chat.completions'::text, 'responses'::text, 'embeddings'::text, 'messages'::text]))),
  constraint batches_output_bytes_check CHECK ((output_bytes >= 0)),
  constraint batches_output_ttl_seconds_check CHECK ((output_ttl_seconds > 0)),
  constraint batches_pkey PRIMARY KEY (id),
  constraint batches_replayed_check CHECK ((replayed >= 0)),
  constraint batches_scan_bytes_check CHECK ((scan_bytes >= 0)),
  constraint batches_scan_lines_check CHECK ((scan_lines >= 0)),
  constraint batches_status_check CHECK ((status = ANY (ARRAY['validating'::text, 'failed'::text, 'in_progress'::text, 'finalizing'::text, 'completed'::text, 'expired'::text, 'cancelling'::text, 'cancelled'::text]))),
  constraint batches_succeeded_check CHECK ((succeeded >= 0)),
  constraint batches_total_check CHECK ((total >= 0)),
  constraint batches_window_seconds_check CHECK ((window_seconds > 0))
);
CREATE INDEX batches_active ON public.batches USING btree (wake_at) WHERE (ended_at IS NULL);
CREATE INDEX batches_ended ON public.batches USING btree (ended_at) WHERE (ended_at IS NOT NULL);
CREATE INDEX batches_input ON public.batches USING btree (input_file_id) WHERE (ended_at IS NULL);
CREATE INDEX batches_list ON public.batches USING btree (tenant_id, kind, created_at DESC, id DESC);

create table decisions (
  id bigint not null generated always as identity,
  at timestamp with time zone not null default now(),
  tenant_id text not null,
  job_id uuid not null,
  idempotency_key text collate "C" not null,
  action text not null,
  accept_duplicate_charge boolean not null,
  from_state text not null,
  to_state text not null,
  attempt integer not null,
  generation integer not null,
  paid integer not null,
  api_key_id uuid not null,
  api_key_name text not null,
  reason text,
  constraint decisions_action_check CHECK ((action = ANY (ARRAY['retry'::text, 'fail'::text, 'cancel'::text, 'delete'::text]))),
  constraint decisions_pkey PRIMARY KEY (id),
  constraint decisions_reason_check CHECK (((length(reason) >= 1) AND (length(reason) <= 500)))
);
CREATE INDEX decisions_by_job ON public.decisions USING btree (job_id, id);
CREATE INDEX decisions_by_key ON public.decisions USING btree (tenant_id, idempotency_key);
CREATE INDEX decisions_retention ON public.decisions USING btree (at);

create table expiries (
  expires_at timestamp with time zone not null,
  job_ids uuid[] not null
);
CREATE INDEX expiries_due ON public.expiries USING btree (expires_at);

create table file_parts (
  file_id uuid not null,
  "position" bigint not null,
  body bytea not null,
  constraint file_parts_body_check CHECK ((octet_length(body) > 0)),
  constraint file_parts_pkey PRIMARY KEY (file_id, "position"),
  constraint file_parts_position_check CHECK (("position" >= 0))
);

create table files (
  id uuid not null,
  tenant_id text not null,
  purpose text not null,
  filename text not null,
  status text not null,
  bytes bigint not null default 0,
  sha256 bytea,
  created_at timestamp with time zone not null default now(),
  touched_at timestamp with time zone not null default now(),
  expires_at timestamp with time zone,
  constraint files_bytes_check CHECK ((bytes >= 0)),
  constraint files_filename_check CHECK (((length(filename) >= 1) AND (length(filename) <= 255))),
  constraint files_pkey PRIMARY KEY (id),
  constraint files_sha256_check CHECK ((octet_length(sha256) = 32)),
  constraint files_status_check CHECK ((status = ANY (ARRAY['uploading'::text, 'writing'::text, 'processed'::text, 'internal'::text])))
);
CREATE INDEX files_expiry ON public.files USING btree (expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX files_list ON public.files USING btree (tenant_id, created_at DESC, id DESC) WHERE (status = 'processed'::text);
CREATE INDEX files_uploads ON public.files USING btree (touched_at) WHERE (status = 'uploading'::text);

create table forgotten_jobs (
  job_id uuid not null,
  at timestamp with time zone not null default now(),
  constraint forgotten_jobs_pkey PRIMARY KEY (job_id)
);
CREATE INDEX forgotten_jobs_age ON public.forgotten_jobs USING btree (at);

create table job_lists (
  list text collate "C" not null,
  tenant_id text collate "C" not null,
  created_at timestamp with time zone not null,
  job_id uuid not null,
  since timestamp with time zone,
  constraint job_lists_list_check CHECK ((list = ANY (ARRAY['failed'::text, 'cancelled'::text, 'uncertain'::text, 'maybe_paid'::text, 'paid_twice'::text, 'stored'::text]))),
  constraint job_lists_pkey PRIMARY KEY (list, tenant_id, created_at, job_id)
);
CREATE INDEX job_lists_held ON public.job_lists USING btree (since) WHERE (list = 'uncertain'::text);
CREATE INDEX job_lists_stored ON public.job_lists USING btree (tenant_id, job_id) WHERE (list = 'stored'::text);

create table jobs (
  id uuid not null,
  tenant_id text not null,
  idempotency_key text collate "C" not null,
  fingerprint bytea not null,
  body_digest bytea,
  operation text not null,
  model text not null,
  lane text not null,
  streamed boolean not null default false,
  owner_batch uuid,
  metadata jsonb,
  priority smallint not null,
  timeout_ms integer not null,
  ttl_seconds integer not null,
  deadline_seconds integer not null,
  state text not null,
  generation integer not null default 1,
  attempt integer not null default 0,
  on_uncertain text not null,
  max_attempts smallint not null,
  max_paid_attempts smallint not null,
  tries integer not null default 0,
  paid integer not null default 0,
  billed integer not null default 0,
  consented_paid integer not null default 0,
  reruns integer not null default 0,
  run_at timestamp with time zone not null,
  deadline_at timestamp with time zone not null,
  reserve_usd numeric(20,10),
  reserve_tokens integer,
  response_status smallint,
  flags text[] not null default '{}'::text[],
  answer_attempt integer,
  provider_request_id text,
  error jsonb,
  error_response bytea,
  error_content_type text,
  input_tokens bigint,
  output_tokens bigint,
  cost_usd numeric(20,10),
  created_at timestamp with time zone not null default now(),
  started_at timestamp with time zone,
  uncertain_since timestamp with time zone,
  completed_at timestamp with time zone,
  expires_at timestamp with time zone,
  constraint jobs_answer_is_whole CHECK ((((state = 'succeeded'::text) = (answer_attempt IS NOT NULL)) AND ((state = 'succeeded'::text) = (response_status IS NOT NULL)))),
  constraint jobs_attempt_check CHECK ((attempt >= 0)),
  constraint jobs_body_digest_check CHECK ((octet_length(body_digest) = 33)),
  constraint jobs_check CHECK (((billed >= 0) AND (billed <= paid))),
  constraint jobs_consented_paid_check CHECK ((consented_paid >= 0)),
  constraint jobs_deadline_seconds_check CHECK ((deadline_seconds > 0)),
  constraint jobs_error_response_check CHECK ((octet_length(error_response) <= 262144)),
  constraint jobs_error_response_is_whole CHECK (((error_response IS NULL) = (error_content_type IS NULL))),
  constraint jobs_failed_says_why CHECK (((state <> 'failed'::text) OR (error IS NOT NULL))),
  constraint jobs_fingerprint_check CHECK ((octet_length(fingerprint) = 32)),
  constraint jobs_generation_check CHECK ((generation > 0)),
  constraint jobs_idempotency_key_check CHECK (((length(idempotency_key) >= 1) AND (length(idempotency_key) <= 255))),
  constraint jobs_key UNIQUE (tenant_id, idempotency_key),
  constraint jobs_max_attempts_check CHECK ((max_attempts > 0)),
  constraint jobs_max_paid_attempts_check CHECK ((max_paid_attempts > 0)),
  constraint jobs_on_uncertain_check CHECK ((on_uncertain = ANY (ARRAY['rerun'::text, 'hold'::text, 'fail'::text]))),
  constraint jobs_operation_check CHECK ((operation = ANY (ARRAY['chat.completions'::text, 'responses'::text, 'embeddings'::text, 'messages'::text]))),
  constraint jobs_paid_check CHECK ((paid >= 0)),
  constraint jobs_pkey PRIMARY KEY (id),
  constraint jobs_priority_check CHECK (((priority >= 0) AND (priority <= 9))),
  constraint jobs_queued_may_run CHECK (((state <> 'queued'::text) OR ((tries < max_attempts) AND ((paid = 0) OR ((on_uncertain = 'rerun'::text) AND (paid < max_paid_attempts)) OR (paid < consented_paid))))),
  constraint jobs_reruns_check CHECK ((reruns >= 0)),
  constraint jobs_reserve_tokens_check CHECK ((reserve_tokens >= 0)),
  constraint jobs_reserve_usd_check CHECK ((reserve_usd >= (0)::numeric)),
  constraint jobs_running_is_claimed CHECK (((state <> 'running'::text) OR ((attempt > 0) AND (started_at IS NOT NULL)))),
  constraint jobs_state_check CHECK ((state = ANY (ARRAY['queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'uncertain'::text, 'cancelled'::text]))),
  constraint jobs_terminal_is_dated CHECK ((((state = ANY (ARRAY['succeeded'::text, 'failed'::text, 'cancelled'::text])) = (completed_at IS NOT NULL)) AND ((completed_at IS NULL) = (expires_at IS NULL)))),
  constraint jobs_timeout_ms_check CHECK ((timeout_ms > 0)),
  constraint jobs_tries_check CHECK ((tries >= 0)),
  constraint jobs_ttl_seconds_check CHECK ((ttl_seconds > 0)),
  constraint jobs_uncertain_is_dated CHECK (((state = 'uncertain'::text) = (uncertain_since IS NOT NULL)))
) with (autovacuum_analyze_scale_factor=0.02, autovacuum_vacuum_insert_scale_factor=0.05, autovacuum_vacuum_scale_factor=0.02, fillfactor=45);
CREATE INDEX jobs_list ON public.jobs USING btree (tenant_id, created_at, id);
CREATE INDEX jobs_metadata ON public.jobs USING gin (jsonb_set('{}'::jsonb, ARRAY[tenant_id], metadata) jsonb_path_ops) WHERE (metadata IS NOT NULL);
CREATE TRIGGER jobs_added AFTER INSERT ON public.jobs REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION add_to_ready();
CREATE TRIGGER jobs_expiry_changed AFTER UPDATE OF expires_at ON public.jobs FOR EACH ROW WHEN (((new.expires_at IS NOT NULL) AND (new.expires_at IS DISTINCT FROM old.expires_at) AND (NOT ((old.state <> 'succeeded'::text) AND (new.state = 'succeeded'::text))))) EXECUTE FUNCTION note_expiry();
CREATE TRIGGER jobs_expiry_given AFTER INSERT ON public.jobs FOR EACH ROW WHEN ((new.expires_at IS NOT NULL)) EXECUTE FUNCTION note_expiry();
CREATE TRIGGER jobs_forgotten AFTER DELETE ON public.jobs REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION forget_jobs();
CREATE TRIGGER jobs_id_changed AFTER UPDATE OF id ON public.jobs FOR EACH ROW WHEN ((old.id <> new.id)) EXECUTE FUNCTION forget_id();
CREATE TRIGGER jobs_listed AFTER INSERT ON public.jobs FOR EACH ROW WHEN (((new.state = ANY (ARRAY['failed'::text, 'cancelled'::text, 'uncertain'::text])) OR ((new.paid - new.billed) >
        CASE
            WHEN (new.state = 'running'::text) THEN 1
            ELSE 0
        END) OR (new.paid >
        CASE
            WHEN (new.state = 'running'::text) THEN 2
            ELSE 1
        END) OR ((new.state = 'succeeded'::text) AND (new.metadata IS NOT NULL) AND (new.operation = 'chat.completions'::text)))) EXECUTE FUNCTION list_job();
CREATE TRIGGER jobs_queued_changed AFTER UPDATE ON public.jobs FOR EACH ROW WHEN ((((old.state = 'queued'::text) OR (new.state = 'queued'::text)) AND (NOT ((old.state = 'queued'::text) AND (new.state = 'running'::text))) AND ((((((((old.state IS DISTINCT FROM new.state) OR (old.id IS DISTINCT FROM new.id)) OR (old.lane IS DISTINCT FROM new.lane)) OR (old.tenant_id IS DISTINCT FROM new.tenant_id)) OR (old.model IS DISTINCT FROM new.model)) OR (old.priority IS DISTINCT FROM new.priority)) OR (old.run_at IS DISTINCT FROM new.run_at)) OR (old.deadline_at IS DISTINCT FROM new.deadline_at)))) EXECUTE FUNCTION change_ready();
CREATE TRIGGER jobs_queued_deleted AFTER DELETE ON public.jobs FOR EACH ROW WHEN ((old.state = 'queued'::text)) EXECUTE FUNCTION change_ready();
CREATE TRIGGER jobs_relisted AFTER UPDATE ON public.jobs FOR EACH ROW WHEN (((old.state = ANY (ARRAY['failed'::text, 'cancelled'::text, 'uncertain'::text])) OR ((old.paid - old.billed) >
        CASE
            WHEN (old.state = 'running'::text) THEN 1
            ELSE 0
        END) OR (old.paid >
        CASE
            WHEN (old.state = 'running'::text) THEN 2
            ELSE 1
        END) OR ((old.state = 'succeeded'::text) AND (old.metadata IS NOT NULL) AND (old.operation = 'chat.completions'::text)) OR (new.state = ANY (ARRAY['failed'::text, 'cancelled'::text, 'uncertain'::text])) OR ((new.paid - new.billed) >
        CASE
            WHEN (new.state = 'running'::text) THEN 1
            ELSE 0
        END) OR (new.paid >
        CASE
            WHEN (new.state = 'running'::text) THEN 2
            ELSE 1
        END) OR ((new.state = 'succeeded'::text) AND (new.metadata IS NOT NULL) AND (new.operation = 'chat.completions'::text)))) EXECUTE FUNCTION list_job();

create table lanes (
  name text not null,
  model text not null default ''::text,
  state text not null default 'open'::text,
  reason text,
  code text,
  until timestamp with time zone,
  failures integer not null default 0,
  changed_at timestamp with time zone not null default now(),
  turn_at timestamp with time zone,
  constraint lanes_closed_says_why CHECK (((state = 'open'::text) OR (reason IS NOT NULL))),
  constraint lanes_failures_check CHECK ((failures >= 0)),
  constraint lanes_model_check CHECK ((length(model) <= 200)),
  constraint lanes_models_only_pause CHECK (((model = ''::text) OR (state = ANY (ARRAY['open'::text, 'paused'::text])))),
  constraint lanes_name_check CHECK ((name ~ '^[a-z0-9-]{1,40}$'::text)),
  constraint lanes_pkey PRIMARY KEY (name, model),
  constraint lanes_state_check CHECK ((state = ANY (ARRAY['open'::text, 'paused'::text, 'breaker'::text, 'stopped'::text]))),
  constraint lanes_wait_is_dated CHECK (((state = ANY (ARRAY['paused'::text, 'breaker'::text])) = (until IS NOT NULL)))
);

create table large_answers (
  id uuid not null,
  job_id uuid not null,
  attempt integer not null,
  bytes integer not null,
  check_at timestamp with time zone not null,
  constraint large_answers_attempt_check CHECK ((attempt > 0)),
  constraint large_answers_bytes_check CHECK ((bytes > 0)),
  constraint large_answers_pkey PRIMARY KEY (id)
);
CREATE INDEX large_answers_check ON public.large_answers USING btree (check_at);
CREATE INDEX large_answers_job ON public.large_answers USING btree (job_id);

create table open_attempts (
  worker_id uuid not null,
  claim bigint not null,
  job_id uuid not null,
  attempt integer not null,
  tenant_id text not null,
  lane text not null
) with (autovacuum_vacuum_insert_scale_factor=0.05, autovacuum_vacuum_scale_factor=0.02);
CREATE INDEX open_attempts_by_claim ON public.open_attempts USING btree (worker_id, claim, job_id);
CREATE INDEX open_attempts_by_tenant ON public.open_attempts USING btree (tenant_id);

create table ready (
  lane text collate "C" not null,
  tenant_id text collate "C" not null,
  model text collate "C" not null,
  priority smallint not null,
  run_at timestamp with time zone not null,
  job_id uuid not null,
  deadline_at timestamp with time zone not null,
  created_at timestamp with time zone not null,
  reserve_usd numeric(20,10),
  reserve_tokens integer,
  constraint ready_pkey PRIMARY KEY (lane, tenant_id, model, priority, run_at, job_id)
) with (autovacuum_vacuum_insert_scale_factor=0.05, autovacuum_vacuum_scale_factor=0.02);
CREATE INDEX ready_deadline ON public.ready USING btree (deadline_at);
CREATE INDEX ready_list ON public.ready USING btree (tenant_id, created_at, job_id);

create table requests (
  job_id uuid not null,
  request bytea not null,
  request_headers jsonb,
  constraint requests_pkey PRIMARY KEY (job_id)
);

create table schema_migrations (
  version integer not null,
  name text not null,
  checksum text not null,
  applied_at timestamp with time zone not null default now(),
  constraint schema_migrations_pkey PRIMARY KEY (version)
);

create table settings (
  only_row boolean not null default true,
  database_id uuid not null default gen_random_uuid(),
  constraint settings_only_row_check CHECK (only_row),
  constraint settings_pkey PRIMARY KEY (only_row)
);

create table stream_chunks (
  job_id uuid not null,
  attempt integer not null,
  "position" integer not null,
  body bytea not null,
  created_at timestamp with time zone not null default now(),
  constraint stream_chunks_attempt_check CHECK ((attempt > 0)),
  constraint stream_chunks_body_check CHECK ((octet_length(body) > 0)),
  constraint stream_chunks_pkey PRIMARY KEY (job_id, attempt, "position"),
  constraint stream_chunks_position_check CHECK (("position" >= 0))
) with (autovacuum_vacuum_insert_scale_factor=0.05, autovacuum_vacuum_scale_factor=0.02);
CREATE INDEX stream_chunks_age ON public.stream_chunks USING btree (created_at);

create table tenant_days (
  tenant_id text not null,
  day date not null,
  spent_usd numeric(20,10) not null default 0,
  reserved_usd numeric(20,10) not null default 0,
  constraint tenant_days_pkey PRIMARY KEY (tenant_id, day)
);

create table tenant_seconds (
  tenant_id text not null,
  second bigint not null,
  calls integer not null default 0,
  tokens bigint not null default 0,
  constraint tenant_seconds_pkey PRIMARY KEY (tenant_id, second)
);

create table tenant_submissions (
  tenant_id text not null,
  second bigint not null,
  submissions integer not null,
  constraint tenant_submissions_pkey PRIMARY KEY (tenant_id)
) with (fillfactor=50);

create table tenants (
  id text not null,
  created_at timestamp with time zone not null default now(),
  derive_keys boolean not null default false,
  on_uncertain text,
  max_attempts integer,
  max_paid_attempts integer,
  ttl_seconds integer,
  timeout_seconds integer,
  weight integer not null default 1,
  max_running integer,
  max_queued integer,
  submissions_per_second integer,
  calls_per_minute integer,
  tokens_per_minute bigint,
  budget_day_usd numeric(20,10),
  budget_month_usd numeric(20,10),
  constraint tenants_budget_day_usd_check CHECK (((budget_day_usd >= (0)::numeric) AND (budget_day_usd <= (100000000)::numeric))),
  constraint tenants_budget_month_usd_check CHECK (((budget_month_usd >= (0)::numeric) AND (budget_month_usd <= (100000000)::numeric))),
  constraint tenants_calls_per_minute_check CHECK (((calls_per_minute >= 1) AND (calls_per_minute <= 10000000))),
  constraint tenants_id_check CHECK ((id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'::text)),
  constraint tenants_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 100))),
  constraint tenants_max_paid_attempts_check CHECK (((max_paid_attempts >= 1) AND (max_paid_attempts <= 10))),
  constraint tenants_max_queued_check CHECK (((max_queued >= 0) AND (max_queued <= 100000000))),
  constraint tenants_max_running_check CHECK (((max_running >= 0) AND (max_running <= 100000))),
  constraint tenants_on_uncertain_check CHECK ((on_uncertain = ANY (ARRAY['rerun'::text, 'hold'::text, 'fail'::text]))),
  constraint tenants_pkey PRIMARY KEY (id),
  constraint tenants_submissions_per_second_check CHECK (((submissions_per_second >= 1) AND (submissions_per_second <= 1000000))),
  constraint tenants_timeout_seconds_check CHECK (((timeout_seconds >= 1) AND (timeout_seconds <= 86400))),
  constraint tenants_tokens_per_minute_check CHECK (((tokens_per_minute >= 1) AND (tokens_per_minute <= '1000000000000'::bigint))),
  constraint tenants_ttl_seconds_check CHECK ((ttl_seconds > 0)),
  constraint tenants_weight_check CHECK (((weight >= 1) AND (weight <= 100)))
);

create table workers (
  id uuid not null,
  host text not null,
  pid integer not null,
  version text not null,
  beat bigint not null default 0,
  beat_at timestamp with time zone not null default now(),
  started_at timestamp with time zone not null default now(),
  dead boolean not null default false,
  died_at timestamp with time zone,
  session integer,
  constraint workers_death_is_dated CHECK ((dead = (died_at IS NOT NULL))),
  constraint workers_pkey PRIMARY KEY (id)
);
CREATE INDEX workers_living ON public.workers USING btree (id) WHERE (NOT dead);

CREATE OR REPLACE FUNCTION public.add_to_ready()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  insert into ready (lane, tenant_id, model, priority, run_at, job_id, deadline_at, created_at, reserve_usd, reserve_tokens)
  select lane, tenant_id, model, priority, run_at, id, deadline_at, created_at, reserve_usd, reserve_tokens
  from added where state = 'queued';
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.change_ready()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.claim_jobs(worker uuid, claim_number bigint, lane_name text, places integer, first_tenant text, first_credit integer, aged_first boolean, known_tenants text[], known_models text[], known_priorities smallint[], known_since timestamp with time zone[])
 RETURNS TABLE(id uuid, attempt integer, generation integer, tenant_id text, operation text, model text, lane text, request bytea, request_headers jsonb, streamed boolean, timeout_ms integer, on_uncertain text, reruns integer, mark uuid, priority smallint, run_at timestamp with time zone, queue_ms double precision, next_tenant text, next_credit integer, more boolean, at_limit boolean)
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.forget_id()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  delete from requests where job_id = old.id;
  delete from answers where job_id = old.id;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION public.forget_jobs()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.list_job()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
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
end $function$;

CREATE OR REPLACE FUNCTION public.lists_of(job jobs)
 RETURNS text[]
 LANGUAGE sql
 IMMUTABLE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION public.may_be_claimed(j jobs)
 RETURNS boolean
 LANGUAGE sql
 STABLE
AS $function$
  select coalesce(
    j.state = 'queued' and j.run_at <= now() and j.deadline_at > now() and j.tries < j.max_attempts
    and (j.paid = 0 or (j.on_uncertain = 'rerun' and j.paid < j.max_paid_attempts) or j.paid < j.consented_paid),
    false
  )
$function$;

CREATE OR REPLACE FUNCTION public.may_be_picked(r ready, budget numeric)
 RETURNS boolean
 LANGUAGE sql
 STABLE
AS $function$
  select r.deadline_at > now() and (budget is null or r.reserve_usd <= budget)
$function$;

CREATE OR REPLACE FUNCTION public.note_expiry()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  insert into expiries (expires_at, job_ids) values (new.expires_at, array[new.id]);
  return null;
end $function$;
