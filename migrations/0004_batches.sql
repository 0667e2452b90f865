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
create unique index batch_lines_done on batch_lines (batch_id, done_number) where state = 'done';

alter table batch_lines set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- The one batch that alone wants this job; null: somebody else wants it too. A job that was cancelled with this set was
-- cancelled because its batch ended, not by a person: submitted again, it runs again.
alter table jobs add column owner_batch uuid;
