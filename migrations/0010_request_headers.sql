-- Headers of the caller that go to the provider with the request: betas, and those that ASKONCE_FORWARD_HEADERS names.
-- An object of texts by lower-case name; null: none.
alter table jobs add column request_headers jsonb;
alter table batches add column request_headers jsonb;
