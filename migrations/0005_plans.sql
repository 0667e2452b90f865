-- Statements of the hot path keep their plans, which may have been made while the tables were nearly empty. What looks equally good to
-- the planner then must not be a choice. Of indexes over `state = 'queued'` each is for one question, so the others are written in a way that
-- only their own statements match.

-- The unique key as the newest index of the table: of two that look equally good Postgres takes the newer one, and while a table is
-- small the list of a tenant looks as good as the key.
create unique index jobs_key_newest on jobs (tenant_id, idempotency_key);
alter table jobs drop constraint jobs_key;
alter table jobs add constraint jobs_key unique using index jobs_key_newest;

-- For the sweep of jobs whose deadline passed while they were queued.
drop index jobs_deadline;
create index jobs_deadline on jobs ((case when state = 'queued' then deadline_at end))
where (case when state = 'queued' then deadline_at end) is not null;

-- For lists and counts by state. Succeeded jobs, most of the table, are found by jobs_list.
drop index jobs_list_state;
create index jobs_list_state on jobs (tenant_id, (nullif(state, 'succeeded')), created_at desc, id desc) include (state)
where nullif(state, 'succeeded') is not null;
