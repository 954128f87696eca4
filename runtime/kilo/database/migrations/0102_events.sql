-- What ingest writes beside the outbox: the events themselves, as business rows. A field that the tenant's
-- configuration names lies encrypted in `payload`, bound to the row by its fingerprint.
CREATE TABLE events (
    fingerprint  text        PRIMARY KEY,
    tenant       text        NOT NULL,
    aggregate    text        NOT NULL,
    aggregate_id text        NOT NULL,
    kind         text        NOT NULL,
    payload      jsonb       NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX events_tenant_idx ON events (tenant, received_at);
