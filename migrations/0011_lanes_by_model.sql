-- A rate limit is of a model: the others of its lane go on. Model '' is the row of the whole lane.
alter table lanes
  add column model text not null default '' check (length(model) <= 200),
  -- After a pause or behind a breaker one job at a time is handed over, until a call is answered: not before this.
  add column turn_at timestamptz,
  drop constraint lanes_pkey,
  add primary key (name, model),
  -- Money, credentials and overload are of the lane.
  add constraint lanes_models_only_pause check (model = '' or state in ('open', 'paused'));

-- By model, so that what waits for a paused one is skipped and not walked through.
drop index jobs_to_dispatch;
create index jobs_to_dispatch on jobs (lane, model, run_at, id) where state = 'queued' and dispatched_at is null;

-- A provider's error is shown as it came: one that repeats the request is larger than 64 KiB.
alter table jobs
  drop constraint jobs_error_response_check,
  add constraint jobs_error_response_check check (octet_length(error_response) <= 262144);

-- Who runs the server sees what providers say about everybody; who administers a tenant does not.
alter table api_keys
  drop constraint api_keys_scopes_check,
  add constraint api_keys_scopes_check check (
    scopes <@ array['submit', 'read', 'admin', 'operator'] and cardinality(scopes) > 0
  );
-- The keys that an operator gave every scope there was keep every scope there is.
update api_keys set scopes = scopes || array['operator'] where tenant_id = 'default' and scopes @> array['submit', 'read', 'admin'];
