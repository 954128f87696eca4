-- What a consumer had not read when the stream gave it up: positions, both inclusive. `kilo consumer refill` takes
-- the events from the outbox's rows. It works in the name of the worker, which alone reads and publishes those; of
-- the consumer's tables that role sees what an event is known by, and nothing that an event says.
CREATE TABLE consumer_gaps (
    consumer      text        NOT NULL,
    source        text        NOT NULL,
    from_position bigint      NOT NULL,
    to_position   bigint      NOT NULL CHECK (to_position >= from_position),
    found_at      timestamptz NOT NULL DEFAULT now(),
    refilled_at   timestamptz,
    PRIMARY KEY (consumer, source, from_position)
);
GRANT SELECT, INSERT, UPDATE ON consumer_gaps TO kilo_consumer;
GRANT SELECT, UPDATE (refilled_at) ON consumer_gaps TO kilo_worker;
GRANT SELECT (consumer, source, position) ON consumer_positions TO kilo_worker;
GRANT SELECT (consumer, tenant, fingerprint, created_at) ON inbox, dead_letters TO kilo_worker;
GRANT SELECT ON partition_windows TO kilo_worker;
