-- What holds for a tenant's submissions that do not say otherwise; null: what the server's variables say.
alter table tenants
  add column on_uncertain text check (on_uncertain in ('rerun', 'hold', 'fail')),
  add column max_attempts integer check (max_attempts between 1 and 100),
  add column max_paid_attempts integer check (max_paid_attempts between 1 and 10),
  add column ttl_seconds integer check (ttl_seconds > 0),
  add column timeout_seconds integer check (timeout_seconds between 1 and 86400);
