-- How far the reconciler has compared outbox and stream.
CREATE TABLE outbox_reconciler (
    stream         text        PRIMARY KEY,
    marked         bigint      NOT NULL DEFAULT 0,  -- position up to which change capture's rows are marked
    resume         bigint      NOT NULL DEFAULT 0,  -- position from which the stream has to be read again
    verified_until timestamptz NOT NULL,            -- rows marked before this were found in the stream
    republished    bigint      NOT NULL DEFAULT 0,
    compared_at    timestamptz
);
GRANT SELECT, INSERT, UPDATE ON outbox_reconciler TO kilo_worker;
-- Rows marked within some seconds lie together; a B-tree would cost every insert and mark far more.
CREATE INDEX outbox_dequeued_idx ON outbox USING brin (dequeued_at) WITH (autosummarize = on, pages_per_range = 16);
