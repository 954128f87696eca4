-- One row an event and consumer: written in the transaction of the handler's own writes, so that an event
-- has one effect however often it is delivered. An event's creation time travels with it, so every delivery
-- finds the same partition and the key holds across them.
CREATE TABLE inbox (
    consumer    text        NOT NULL,
    fingerprint text        NOT NULL,
    created_at  timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant      text        NOT NULL,
    publisher   text        NOT NULL,
    duplicates  integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer, fingerprint, created_at)
) PARTITION BY RANGE (created_at);
SELECT kilo_create_partitions('inbox', 3);

-- How far a consumer has read a stream, written in the same transaction: what a crash undoes it undoes whole.
CREATE TABLE consumer_positions (
    consumer   text        NOT NULL,
    source     text        NOT NULL,
    position   bigint      NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, source)
);

-- Dead letters, and what waits behind one of the same aggregate.
CREATE TABLE dead_letters (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer     text        NOT NULL,
    state        text        NOT NULL DEFAULT 'parked'
        CHECK (state IN ('retrying', 'parked', 'waiting', 'replaying', 'replayed', 'discarded')),
    fingerprint  text        NOT NULL,
    tenant       text        NOT NULL,
    aggregate    text        NOT NULL,
    aggregate_id text        NOT NULL,
    kind         text        NOT NULL,
    payload      bytea       NOT NULL,
    headers      jsonb       NOT NULL,
    traceparent  text,
    created_at   timestamptz NOT NULL,
    error        text        NOT NULL DEFAULT '',
    stack_digest text        NOT NULL DEFAULT '',
    attempts     integer     NOT NULL DEFAULT 0,
    first_at     timestamptz NOT NULL DEFAULT now(),
    last_at      timestamptz NOT NULL DEFAULT now(),
    next_at      timestamptz,
    position     bigint      NOT NULL,
    holds        boolean     NOT NULL DEFAULT true,  -- whether later events of the aggregate wait behind it
    replays      integer     NOT NULL DEFAULT 0,
    UNIQUE (consumer, fingerprint)
);
CREATE INDEX dead_letters_open_idx ON dead_letters (consumer, aggregate, aggregate_id, id)
    WHERE holds AND state IN ('retrying', 'parked', 'waiting', 'replaying');
CREATE TABLE dead_letter_edits (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dead_letter_id bigint      NOT NULL REFERENCES dead_letters ON DELETE CASCADE,
    edited_at      timestamptz NOT NULL DEFAULT now(),
    edited_by      text        NOT NULL,
    before         bytea       NOT NULL,
    after          bytea       NOT NULL
);

-- The sample consumer's projection: what it knows of each aggregate, without any sensitive value.
CREATE TABLE projection (
    tenant           text        NOT NULL,
    aggregate        text        NOT NULL,
    aggregate_id     text        NOT NULL,
    events           bigint      NOT NULL,
    last_kind        text        NOT NULL,
    last_fingerprint text        NOT NULL,
    contact_hint     text,
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, aggregate, aggregate_id)
);
