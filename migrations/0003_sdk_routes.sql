-- What callers of the providers' own SDKs need: streams that can be followed, the provider's own errors and ids, derived keys.

alter table jobs
  -- The request has "stream": true: its answer is the provider's event stream, byte for byte.
  add column streamed boolean not null default false,
  -- The provider's own id of the answer; of a streamed one as soon as it is shown.
  add column answer_id text check (length(answer_id) between 1 and 200),
  -- The provider's own error body of the attempt that `error` speaks of, where it sent one.
  add column error_response bytea check (octet_length(error_response) <= 65536),
  add column error_content_type text,
  add constraint jobs_error_response_is_whole check ((error_response is null) = (error_content_type is null));

-- For readers by the provider's id: responses, and chat completions that were stored to be found again.
create index jobs_answer_id on jobs (tenant_id, answer_id)
  where answer_id is not null and (operation = 'responses' or metadata is not null);

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

-- Whether requests of SDKs that name no key get one that is derived from what they ask.
alter table tenants add column derive_keys boolean not null default false;
