-- For readers of the ledger by key: it outlives the job, whose id is then known to nobody.
create index attempts_by_key on attempts (tenant_id, idempotency_key, started_at);
