-- The transactional outbox. A row is written in the transaction of the change that it announces, and
-- whatever writes it (this project's SDK, plain SQL, COPY, another language) gets the same guarantees,
-- since the trigger below gives them, not the client.

CREATE SEQUENCE outbox_id_seq CACHE 1;  -- cached blocks would let a later writer take a smaller id

CREATE TABLE outbox (
    id             bigint      NOT NULL,
    aggregate      text        NOT NULL,
    aggregate_id   text        NOT NULL,
    kind           text        NOT NULL,
    payload        jsonb       NOT NULL,
    fingerprint    text        NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    dequeued_at    timestamptz,
    tenant         text        NOT NULL,
    traceparent    text,
    publisher      text        NOT NULL DEFAULT 'worker',
    slot           smallint    NOT NULL
        GENERATED ALWAYS AS ((hashtextextended(aggregate || '/' || aggregate_id, 0) & 63)::smallint) STORED,
    content_digest bytea       NOT NULL,
    PRIMARY KEY (id, created_at),
    -- What a row holds becomes a NATS subject and headers: anything unsafe there must never enter, since
    -- once in the WAL it would stop change capture again at every restart.
    CONSTRAINT outbox_aggregate_is_a_subject_token CHECK (aggregate ~ '^[a-z][a-z0-9_-]{0,62}$'),
    CONSTRAINT outbox_aggregate_id_is_printable CHECK (aggregate_id ~ '^[!-~]{1,200}$'),
    CONSTRAINT outbox_kind_is_a_name CHECK (kind ~ '^[a-z][a-z0-9_.-]{0,126}$'),
    CONSTRAINT outbox_fingerprint_is_printable CHECK (fingerprint ~ '^[!-~]{1,255}$'),
    CONSTRAINT outbox_tenant_is_a_label CHECK (tenant ~ '^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$'),
    CONSTRAINT outbox_traceparent_is_w3c CHECK (traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'),
    CONSTRAINT outbox_publisher_is_known CHECK (publisher IN ('worker', 'cdc')),
    CONSTRAINT outbox_payload_within_limit CHECK (octet_length(payload::text) <= 1048576)
) PARTITION BY RANGE (created_at);

ALTER SEQUENCE outbox_id_seq OWNED BY outbox.id;
CREATE INDEX outbox_waiting_idx ON outbox (id) WHERE dequeued_at IS NULL;

-- Which aggregates go by change capture; all others by the worker. A row's publisher is decided by its own
-- insert, so that a change of this list while events flow loses none and doubles none.
CREATE TABLE outbox_cdc_aggregates (aggregate text PRIMARY KEY);

CREATE FUNCTION outbox_before_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    known bytea;
BEGIN
    IF NEW.content_digest IS NULL THEN
        NEW.content_digest := sha256(convert_to(
            concat_ws(E'\n', NEW.tenant, NEW.aggregate, NEW.aggregate_id, NEW.kind, NEW.payload::text), 'UTF8'));
    END IF;
    -- A unique index can't span partitions, so writers of one fingerprint take turns and look it up in all.
    PERFORM pg_advisory_xact_lock(hashtextextended('outbox-fingerprint/' || NEW.fingerprint, 0));
    SELECT o.content_digest INTO known FROM outbox o WHERE o.fingerprint = NEW.fingerprint LIMIT 1;
    IF FOUND THEN
        IF known = NEW.content_digest THEN
            RETURN NULL;
        END IF;
        RAISE unique_violation USING
            MESSAGE = format('fingerprint %s was used for another content', NEW.fingerprint),
            CONSTRAINT = 'outbox_fingerprint_content';
    END IF;
    -- Order per aggregate: its writers take turns before the id is taken and until they commit, so whoever
    -- sees a row sees all earlier ones of its aggregate too. The transaction id is taken before the row's id:
    -- the worker relies on ids of a transaction being larger than any seen before that transaction began.
    PERFORM pg_advisory_xact_lock(
        hashtextextended('outbox-aggregate/' || NEW.aggregate || '/' || NEW.aggregate_id, 0));
    PERFORM pg_current_xact_id();
    NEW.id := nextval('outbox_id_seq');
    NEW.dequeued_at := NULL;
    NEW.publisher := CASE WHEN EXISTS (SELECT FROM outbox_cdc_aggregates c WHERE c.aggregate = NEW.aggregate)
                          THEN 'cdc' ELSE 'worker' END;
    RETURN NEW;
END $$;
CREATE TRIGGER outbox_before_insert BEFORE INSERT ON outbox
    FOR EACH ROW EXECUTE FUNCTION outbox_before_insert();

-- At most one notification a transaction (PostgreSQL folds equal ones). NOTIFY serialises commits, so a busy
-- database can turn it off: ALTER DATABASE … SET kilo.outbox_notify = off. The worker polls behind it.
CREATE FUNCTION outbox_after_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(nullif(current_setting('kilo.outbox_notify', true), ''), 'on') <> 'off' THEN
        PERFORM pg_notify('outbox', '');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER outbox_after_insert AFTER INSERT ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION outbox_after_insert();

-- Hash slots of aggregates and the worker that holds each. Workers claim slots, not rows.
CREATE TABLE outbox_slots (
    slot        smallint PRIMARY KEY,
    owner       text,
    lease_until timestamptz
);
INSERT INTO outbox_slots (slot) SELECT generate_series(0, 63);
CREATE TABLE outbox_workers (
    worker     text PRIMARY KEY,
    seen_until timestamptz NOT NULL
);

-- Aggregates whose next event can't be published: what waits behind it, and when it is tried again.
CREATE TABLE outbox_stuck (
    aggregate    text        NOT NULL,
    aggregate_id text        NOT NULL,
    outbox_id    bigint      NOT NULL,
    attempts     integer     NOT NULL,
    error        text        NOT NULL,
    since        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (aggregate, aggregate_id)
);
