-- Nobody else's answers, consent, forgetting, and looking things up.

-- What names an attempt to the provider: random, so that nobody can plant or guess it. Attempts of the version before have none, and are
-- not looked up.
alter table attempts add column mark uuid;
alter table attempts alter column mark set default gen_random_uuid();

-- The metadata of the job, so that what a run or a customer has cost is known after its jobs are gone.
alter table attempts add column metadata jsonb;

-- A job that was or may have been paid and has no answer is deleted only with consent, and that is a decision.
alter table decisions drop constraint decisions_action_check;
alter table decisions add constraint decisions_action_check check (action in ('retry', 'fail', 'cancel', 'delete'));

-- Jobs that were deleted a moment ago. What was copied of their answers into the results of batches is removed after the deletion, and
-- again a minute later, when nobody can be writing a copy that was read before it. A line that still waits for such a job ends.
create table forgotten_jobs (
  job_id uuid primary key,
  at timestamptz not null default now()
);
create index forgotten_jobs_age on forgotten_jobs (at);

-- For the removal of those copies.
create index batch_lines_done_job on batch_lines (job_id) where state = 'done';

-- For lists and bulk changes by metadata. The tenant is part of what is looked for: entries of others are not even read.
create index jobs_metadata on jobs using gin (jsonb_set('{}', array[tenant_id], metadata) jsonb_path_ops) where metadata is not null;

-- For lists of jobs that may have been paid for, and of those that were or may have been paid for twice. The open attempt of a running
-- job says nothing yet, so rows on the usual path are in neither.
create index jobs_maybe_paid on jobs (tenant_id, created_at desc, id desc)
where paid - billed > (case when state = 'running' then 1 else 0 end);
create index jobs_paid_twice on jobs (tenant_id, created_at desc, id desc)
where paid > (case when state = 'running' then 2 else 1 end);

-- For erasing what names somebody in the decisions about jobs that are gone.
create index decisions_by_key on decisions (tenant_id, idempotency_key);
