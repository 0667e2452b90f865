-- Answers of more than 8 MiB stand beside their job, in pieces that are written and read one by one: as one value they would hold up
-- everybody who shares a statement or a connection with them.

create table large_answers (
  job_id uuid not null,
  attempt integer not null check (attempt > 0),
  bytes integer not null check (bytes > 0),
  -- When a sweeper looks whether the answer is still wanted.
  check_at timestamptz not null,
  primary key (job_id, attempt)
);
create index large_answers_check on large_answers (check_at);

create table answer_pieces (
  job_id uuid not null,
  attempt integer not null check (attempt > 0),
  -- Bytes of the answer before this piece.
  "position" integer not null check ("position" >= 0),
  body bytea not null check (octet_length(body) between 1 and 1048576),
  primary key (job_id, attempt, "position")
);
-- Not compressed: a piece is written and read while others wait for the same processor.
alter table answer_pieces alter column body set storage external;

alter table jobs
  -- Length of an answer that stands in answer_pieces; null: it is in `response`, or there is none.
  add column response_bytes integer check (response_bytes > 0),
  drop constraint jobs_answer_is_whole,
  add constraint jobs_answer_is_whole check (
    (state = 'succeeded') = (num_nonnulls(response, response_bytes) = 1)
    and num_nonnulls(response, response_bytes) <= 1
    and (state = 'succeeded') = (answer_attempt is not null)
    and (state = 'succeeded') = (response_status is not null)
  );
