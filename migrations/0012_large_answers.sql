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

alter table jobs
  -- The answer in pieces, and its length; null: it is in `response`, or there is none.
  add column response_pieces uuid,
  add column response_bytes integer check (response_bytes > 0),
  add constraint jobs_pieces_are_counted check ((response_pieces is null) = (response_bytes is null)),
  drop constraint jobs_answer_is_whole,
  add constraint jobs_answer_is_whole check (
    (state = 'succeeded') = (num_nonnulls(response, response_pieces) = 1)
    and num_nonnulls(response, response_pieces) <= 1
    and (state = 'succeeded') = (answer_attempt is not null)
    and (state = 'succeeded') = (response_status is not null)
  );
