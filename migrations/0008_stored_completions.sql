-- For lists of stored completions, which go by id: without it each page reads and sorts all jobs of its tenant.
create index jobs_stored_completions on jobs (tenant_id, id)
  where operation = 'chat.completions' and state = 'succeeded' and not streamed and metadata is not null;
