-- Slots belong to a worker's lease, by its epoch: a slot whose epoch no lease has is free.
ALTER TABLE outbox_slots DROP COLUMN lease_until, ADD COLUMN epoch bigint;
UPDATE outbox_slots SET owner = NULL;

-- Ordering keys whose next event the bus does not take: what is held behind it, and when it is tried again.
CREATE TABLE outbox_blocked (
    tenant       text        NOT NULL,
    aggregate    text        NOT NULL,
    aggregate_id text        NOT NULL,
    outbox_id    bigint      NOT NULL,
    attempts     integer     NOT NULL,
    error        text        NOT NULL,
    since        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, aggregate, aggregate_id)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox_blocked TO kilo_worker;
