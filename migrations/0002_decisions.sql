-- Who decided what about a job, when and why: one row for each change on request, written by the statement that makes the change.
-- Append-only. Like the ledger it has no foreign key to the job and outlives it.
create table decisions (
  -- Orders the decisions about one job: they are made under its row lock.
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  tenant_id text not null,
  job_id uuid not null,
  idempotency_key text collate "C" not null,
  action text not null check (action in ('retry', 'fail', 'cancel')),
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
